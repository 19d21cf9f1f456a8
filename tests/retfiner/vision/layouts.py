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


def refined(state: dict[str, Tensor], text_width: int | None = None) -> dict[str, Tensor]:
    """A released refined encoder: flat, with a classifier, and for RETFound a projection."""
    g = torch.Generator().manual_seed(5)
    extra = {"head.weight": rand(g, 3, WIDTH), "head.bias": rand(g, 3)}
    if text_width is not None:
        extra |= {"proj.weight": rand(g, text_width, WIDTH), "proj.bias": rand(g, text_width)}
    return state | extra


def images(channels: int = 3, batch: int = 2, size: int = SIZE) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, size, size, generator=g, dtype=torch.float64)
