"""Small checkpoints in exactly the published layouts, with everything training left in them."""

from __future__ import annotations

from argparse import Namespace

import torch
from torch import Tensor

WIDTH, DEPTH, HEADS, PATCH, SIZE = 48, 2, 4, 8, 32
GRID = SIZE // PATCH


def rand(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g) * 0.2


def block_shapes(width: int, hidden: int, layer_scale: bool = False) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    return shapes | ({"ls1.gamma": (width,), "ls2.gamma": (width,)} if layer_scale else {})


def vit_shapes(
    width: int, depth: int, patch: int, positions: int, layer_scale: bool = False, hidden: int = 0
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, positions, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        inner = block_shapes(width, hidden or 4 * width, layer_scale)
        shapes |= {f"blocks.{i}.{key}": shape for key, shape in inner.items()}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def mirage_shapes(width: int, depth: int, patch: int, grid: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "global_tokens": (1, 1, width),
        "input_adapters.bscan.pos_emb": (1, width, grid, grid),
        "input_adapters.bscan.proj.weight": (width, 1, patch, patch),
        "input_adapters.bscan.proj.bias": (width,),
    }
    for i in range(depth):
        inner = block_shapes(width, 4 * width)
        shapes |= {f"encoder.{i}.{key}": shape for key, shape in inner.items()}
    return shapes


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        key: rand(g, *shape) + float("norm" in key and key.endswith("weight"))
        for key, shape in shapes.items()
    }


def vit(seed: int = 0, layer_scale: bool = False, hidden: int = 0) -> dict[str, Tensor]:
    return filled(vit_shapes(WIDTH, DEPTH, PATCH, 1 + GRID**2, layer_scale, hidden), seed)


def _decoder(g: torch.Generator) -> dict[str, Tensor]:
    inner = {f"decoder_blocks.0.{k}": rand(g, *s) for k, s in block_shapes(32, 128).items()}
    return inner | {
        "mask_token": rand(g, 1, 1, 32),
        "decoder_pos_embed": rand(g, 1, 1 + GRID**2, 32),
        "decoder_embed.weight": rand(g, 32, WIDTH),
        "decoder_embed.bias": rand(g, 32),
        "decoder_norm.weight": rand(g, 32),
        "decoder_pred.weight": rand(g, 3 * PATCH**2, 32),
    }


def _training(model: str) -> dict:
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}
    return {
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]},
        "epoch": 799,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "args": Namespace(model=model, epochs=800, data_path="/data/retfound", device="cuda"),
    }


def mae(state: dict[str, Tensor]) -> dict:
    """RETFound and MAE."""
    g = torch.Generator().manual_seed(9)
    return {"model": state | _decoder(g), **_training("mae_vit_large_patch16")}


def urfound(state: dict[str, Tensor]) -> dict:
    g = torch.Generator().manual_seed(9)
    text = {
        "bert_encoder.model.bert.embeddings.word_embeddings.weight": rand(g, 9, 8),
        "bert_encoder.model.cls.predictions.bias": rand(g, 9),
        "bert_mlp.weight": rand(g, 8, WIDTH),
    }
    return {"model": state | _decoder(g) | text, **_training("urmodel")}


def visionfm(teacher: dict[str, Tensor], student: dict[str, Tensor]) -> dict:
    head = {"head.mlp.0.weight": torch.ones(4, WIDTH), "head.last_layer.weight_g": torch.ones(4, 1)}
    inner = {f"backbone.{k}": v for k, v in student.items()}
    inner |= {"backbone.masked_embed": torch.ones(1, WIDTH)} | head
    return {
        "student": {f"module.{k}": v for k, v in inner.items()},
        "teacher": {f"backbone.{k}": v for k, v in teacher.items()} | head,
        "ibot_loss": {"center": torch.zeros(1, 4), "center2": torch.zeros(1, 1, 4)},
        "fp16_scaler": {"scale": 65536.0},
        **{k: v for k, v in _training("vit_base").items() if k != "scaler"},
    }


def retfound_dinov2(state: dict[str, Tensor]) -> dict:
    heads = {
        "dino_head.mlp.0.weight": torch.ones(4, WIDTH),
        "ibot_head.last_layer.weight_v": torch.ones(4, 4),
    }
    inner = state | {"mask_token": torch.ones(1, WIDTH)}
    return {"teacher": {f"backbone.{k}": v for k, v in inner.items()} | heads}


def mirage_state(seed: int = 0) -> dict[str, Tensor]:
    return filled(mirage_shapes(WIDTH, DEPTH, PATCH, GRID), seed)


def mirage(state: dict[str, Tensor]) -> dict:
    """The published ``.pth``: three modalities and their decoders."""
    others = {
        "input_adapters.slo.pos_emb": torch.ones(1, WIDTH, GRID, GRID),
        "input_adapters.slo.proj.weight": torch.ones(WIDTH, 1, PATCH, PATCH),
        "input_adapters.bscanlayermap.pos_emb": torch.ones(1, WIDTH, GRID, GRID),
        "input_adapters.bscanlayermap.class_emb.weight": torch.ones(13, 64),
        "output_adapters.bscan.mask_token": torch.ones(1, 1, 32),
        "output_adapters.bscan.decoder_transformer.0.norm1.weight": torch.ones(32),
        "output_adapters.slo.out_proj.weight": torch.ones(64, 32),
    }
    return {"model": state | others, "args": Namespace(model="pretrain_base", num_global_tokens=1)}


def green() -> dict[str, Tensor]:
    """Flat, timm's own keys: positions for patches alone, four registers, LayerScale."""
    state = filled(vit_shapes(WIDTH, DEPTH, PATCH, GRID**2, layer_scale=True))
    return state | {"reg_token": rand(torch.Generator().manual_seed(7), 1, 4, WIDTH)}


def dinov2_with_registers() -> dict[str, Tensor]:
    """Flat, DINOv2's own keys: positions for CLS and patches, none for registers."""
    state = vit(layer_scale=True) | {"mask_token": torch.ones(1, WIDTH)}
    return state | {"register_tokens": rand(torch.Generator().manual_seed(7), 1, 4, WIDTH)}


def dinov3(seed: int = 0, gated: bool = False) -> dict[str, Tensor]:
    """Flat, Meta's own keys: registers, no learned positions, a bias of keys that a mask hides."""
    shapes = vit_shapes(WIDTH, DEPTH, PATCH, 0, layer_scale=True, hidden=96)
    shapes |= {"storage_tokens": (1, 4, WIDTH), "mask_token": (1, WIDTH)}
    del shapes["pos_embed"]
    if gated:
        for i in range(DEPTH):
            for theirs, ours in (("w1", "fc1"), ("w2", "fc1"), ("w3", "fc2")):
                for kind in ("weight", "bias"):
                    wide = shapes[f"blocks.{i}.mlp.{ours}.{kind}"]
                    shapes[f"blocks.{i}.mlp.{theirs}.{kind}"] = wide
            for kind in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
                del shapes[f"blocks.{i}.mlp.{kind}"]
    state = filled(shapes, seed)
    mask = torch.ones(3, WIDTH).index_fill(0, torch.tensor(1), 0.0).flatten()
    state |= {f"blocks.{i}.attn.qkv.bias_mask": mask for i in range(DEPTH)}
    size = WIDTH // HEADS
    return state | {"rope_embed.periods": 100.0 ** (torch.arange(size // 4) / (size // 4))}


def retfound_dinov3(state: dict[str, Tensor]) -> dict:
    return {"teacher": retfound_dinov2(state)["teacher"], "iteration": 1249}


def clip_visual(seed: int = 0) -> dict[str, Tensor]:
    """OpenAI's keys of the ViT, without ``visual.``."""
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (WIDTH,),
        "positional_embedding": (1 + GRID**2, WIDTH),
        "conv1.weight": (WIDTH, 3, PATCH, PATCH),
    }
    inner = {
        "attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "attn.in_proj_bias": (3 * WIDTH,),
        "attn.out_proj.weight": (WIDTH, WIDTH),
        "attn.out_proj.bias": (WIDTH,),
        "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
        "mlp.c_fc.bias": (4 * WIDTH,),
        "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        "mlp.c_proj.bias": (WIDTH,),
    }
    blocks = [f"transformer.resblocks.{i}." for i in range(DEPTH)]
    shapes |= {block + key: shape for block in blocks for key, shape in inner.items()}
    norms = [
        "ln_pre",
        "ln_post",
        *(f"{block}{norm}" for block in blocks for norm in ("ln_1", "ln_2")),
    ]
    state = filled(shapes, seed)
    g = torch.Generator().manual_seed(seed + 1)
    for norm in norms:
        state |= {f"{norm}.weight": 1 + rand(g, WIDTH), f"{norm}.bias": rand(g, WIDTH)}
    return state


def clip(visual: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's CLIP: both encoders."""
    text = {
        "positional_embedding": torch.ones(77, 8),
        "text_projection": torch.ones(8, 16),
        "logit_scale": torch.tensor(4.6),
        "transformer.resblocks.0.attn.in_proj_weight": torch.ones(24, 8),
        "token_embedding.weight": torch.ones(9, 8),
        "ln_final.weight": torch.ones(8),
    }
    return (
        text | {f"visual.{k}": v for k, v in visual.items()} | {"visual.proj": torch.ones(48, 16)}
    )


def eyeclip(visual: dict[str, Tensor]) -> dict:
    g = torch.Generator().manual_seed(9)
    decoder = {f"visual.decoder.{k}": v for k, v in _decoder(g).items()}
    training = {"epoch": 10, "optimizer_state_dict": {"state": {}}, "loss": 0.1}
    return {"model_state_dict": clip(visual) | decoder, **training}


def octcube(seed: int = 0) -> dict[str, Tensor]:
    """flash-attn's keys, patches three B-scans deep, positions by place and by depth."""
    state = filled(vit_shapes(WIDTH, DEPTH, PATCH, 0), seed)
    for i in range(DEPTH):
        for theirs, ours in (("mixer.Wqkv", "attn.qkv"), ("mixer.out_proj", "attn.proj")):
            for kind in ("weight", "bias"):
                state[f"blocks.{i}.{theirs}.{kind}"] = state.pop(f"blocks.{i}.{ours}.{kind}")
    g = torch.Generator().manual_seed(seed + 1)
    del state["pos_embed"]
    return state | {
        "patch_embed.proj.weight": rand(g, WIDTH, 1, 3, PATCH, PATCH),
        "pos_embed_class": rand(g, 1, 1, WIDTH),
        "pos_embed_spatial": rand(g, 1, GRID**2, WIDTH),
    }


def octcube_published(state: dict[str, Tensor]) -> dict:
    of_volumes = {
        "pos_embed_temporal": torch.ones(1, 20, WIDTH),
        "decoder_cls_token": torch.ones(1, 1, 32),
        "decoder_pos_embed_temporal": torch.ones(1, 20, 32),
        "decoder_blocks.0.mixer.Wqkv.weight": torch.ones(96, 32),
        "mask_token": torch.ones(1, 1, 32),
    }
    return {"model": state | of_volumes, **_training("flash_attn_mae_vit_large_patch16")}


def uni4eye(state: dict[str, Tensor]) -> dict:
    heads = {
        "mlp.weight": torch.ones(2, 50),
        "mlp.bias": torch.ones(2),
        "controller.weight": torch.ones(12, 9, 1),
        "controller.bias": torch.ones(12),
    }
    content = mae(state)
    return content | {"model": content["model"] | heads}


def refined(state: dict[str, Tensor], text_width: int | None = None) -> dict[str, Tensor]:
    """A released refined encoder: flat, with a classifier, and for RETFound a projection."""
    g = torch.Generator().manual_seed(5)
    extra = {"head.weight": rand(g, 3, WIDTH), "head.bias": rand(g, 3)}
    if text_width is not None:
        extra |= {"proj.weight": rand(g, text_width, WIDTH), "proj.bias": rand(g, text_width)}
    return state | extra


def state_of(name: str) -> dict[str, Tensor]:
    """The keys of a backbone's published encoder, and nothing else."""
    others = {
        "MIRAGE": mirage_state,
        "MultiMAE": mirage_state,
        "RETFound-Green": green,
        "DINOv3": dinov3,
        "RETFound-DINOv3": dinov3,
        "EyeCLIP": clip_visual,
        "OCTCube": octcube,
    }
    return others[name]() if name in others else vit(3, layer_scale="DINO" in name)


def images(channels: int = 3, batch: int = 2, size: int = SIZE) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, size, size, generator=g, dtype=torch.float64)
