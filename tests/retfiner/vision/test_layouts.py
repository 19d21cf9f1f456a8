"""Every published layout loads, and its encoder computes what the paper's formulas do."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES, Backbone, load_backbone

from . import layouts, naive
from .layouts import HEADS, SIZE

PLAIN = layouts.vit(seed=0)
SCALED = layouts.vit(seed=1, layer_scale=True)
REGISTERS = layouts.dinov2_with_registers()
GREEN = layouts.green()
MIRAGE = layouts.mirage_state()
OTHER = layouts.vit(seed=2)
DINOV3, GATED = layouts.dinov3(), layouts.dinov3(seed=3, gated=True)
CLIP = layouts.clip_visual()
OCTCUBE = layouts.octcube()

# file name, content, backbone it must be taken for, the encoder's published state
CASES = [
    ("RETFound_oct_weights.pth", layouts.mae(PLAIN), "RETFound", PLAIN),
    ("RETFound_mae_natureOCT.pth", layouts.mae(PLAIN), "RETFound", PLAIN),
    ("RETFound_dinov2_meh.pth", layouts.retfound_dinov2(SCALED), "RETFound-DINOv2", SCALED),
    ("urfound_mm.pth", layouts.urfound(PLAIN), "UrFound", PLAIN),
    ("VFM_OCT_weights.pth", layouts.visionfm(PLAIN, OTHER), "VisionFM", PLAIN),
    ("mae_pretrain_vit_base.pth", {"model": PLAIN}, "MAE", PLAIN),
    ("mae_visualize_vit_base.pth", layouts.mae(PLAIN), "MAE", PLAIN),
    ("MIRAGE-Base.pth", layouts.mirage(MIRAGE), "MIRAGE", MIRAGE),
    ("multimae_oct.pth", layouts.mirage(MIRAGE), "MultiMAE", MIRAGE),
    ("retfoundgreen_statedict.pth", GREEN, "RETFound-Green", GREEN),
    ("dinov2_vitb14_pretrain.pth", SCALED | {"mask_token": torch.ones(1, 48)}, "DINOv2", SCALED),
    ("dinov2_vitb14_reg4_pretrain.pth", REGISTERS, "DINOv2", REGISTERS),
    ("dinov3_vits16_pretrain_lvd1689m-08c60483.pth", DINOV3, "DINOv3", DINOV3),
    ("dinov3_vits16plus_pretrain.pth", GATED, "DINOv3", GATED),
    ("retfound_dinov3.pth", layouts.retfound_dinov3(DINOV3), "RETFound-DINOv3", DINOV3),
    ("eyeclip_visual.pt", layouts.eyeclip(CLIP), "EyeCLIP", CLIP),
    ("OCTCube.pth", layouts.octcube_published(OCTCUBE), "OCTCube", OCTCUBE),
    ("uni4eye++_vitl.pth", layouts.uni4eye(PLAIN), "Uni4Eye++", PLAIN),
    ("RetFiner_RETFound.pth", layouts.refined(PLAIN, 64), "RETFound", PLAIN),
    ("RetFiner_UrFound.pth", layouts.refined(PLAIN), "UrFound", PLAIN),
    ("RetFiner_VisionFM.pth", layouts.refined(PLAIN), "VisionFM", PLAIN),
]
TIMMS = {
    "DINOv3": "vit_small_patch16_dinov3_qkvb",
    "RETFound-DINOv3": "vit_small_patch16_dinov3_qkvb",
    "EyeCLIP": "vit_base_patch32_clip_quickgelu_224",
    "OCTCube": "vit_base_patch16_224",
}
"""timm's model with the same keys, where they are not the published ones."""
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]


def loaded(folder: Path, name: str, content: dict, **options: int) -> Backbone:
    torch.save(content, folder / name)
    return load_backbone(folder / name, **({"image_size": SIZE, "num_heads": HEADS} | options))


def reference(backbone: Backbone, state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    marks = {
        "global_tokens": naive.mirage,
        "storage_tokens": naive.dinov3,
        "class_embedding": naive.clip,
        "pos_embed_spatial": naive.octcube,
    }
    forward = next((forward for key, forward in marks.items() if key in state), naive.vit)
    return forward(state, x, HEADS)


@pytest.mark.parametrize(("name", "content", "expected", "state"), CASES, ids=IDS)
def test_encoder_computes_what_a_naive_one_does(tmp_path, name, content, expected, state):
    backbone = loaded(tmp_path, name, content)
    assert backbone.spec is BACKBONES[expected]
    assert (backbone.num_heads, backbone.image_size) == (HEADS, SIZE)
    assert (backbone.width, backbone.patch_size) == (layouts.WIDTH, layouts.PATCH)

    backbone.encoder.double()
    x = layouts.images(backbone.spec.in_chans)
    prefix, patches = reference(backbone, state, x)
    tokens = backbone.tokens(x)
    # DINOv2's position of CLS is added to the CLS token on loading, and the sines and cosines of
    # DINOv3's positions are computed, in float32.
    rounded = {"register_tokens", "storage_tokens"} & state.keys()
    close = {"rtol": 1e-9, "atol": 1e-6 if rounded else 1e-9}
    torch.testing.assert_close(tokens.prefix, prefix, **close)
    torch.testing.assert_close(tokens.patches, patches, **close)

    sequence = torch.cat([prefix, patches], dim=1)
    if expected not in ("UrFound", "MIRAGE", "MultiMAE"):
        name = "ln_post" if "ln_post.weight" in state else "norm"
        weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
        eps = 1e-5 if "CLIP" in expected or "DINOv3" in expected else 1e-6
        sequence = naive.layer_norm(sequence, weight, bias, eps)
    torch.testing.assert_close(backbone.fusion_tokens(x), sequence, **close)


@pytest.mark.parametrize(("name", "content", "expected", "state"), CASES, ids=IDS)
def test_encoder_keeps_exactly_the_pretrained_keys(tmp_path, name, content, expected, state):
    keys = set(loaded(tmp_path, name, content).encoder.state_dict())
    if expected in ("MIRAGE", "MultiMAE"):
        assert keys == {f"model.{key}" for key in state}
    elif "register_tokens" in state:
        assert keys == (set(state) - {"register_tokens", "mask_token"}) | {"reg_token"}
    elif expected in TIMMS:
        name = TIMMS[expected].replace("small", "small_plus" if state is GATED else "small")
        with torch.device("meta"):
            theirs = timm.create_model(name, num_classes=0, global_pool="", depth=2)
        assert keys == set(theirs.state_dict())
    else:
        assert keys == set(state)


def test_a_bias_of_keys_that_nothing_masks_is_no_published_dinov3(tmp_path):
    state = {k: v.clone() for k, v in DINOV3.items() if not k.endswith("bias_mask")}
    with pytest.raises(InputError, match="bias of its attention's keys"):
        loaded(tmp_path, "dinov3.pth", state)
    for key, value in state.items():
        if key.endswith("qkv.bias"):
            value.chunk(3)[1].zero_()
    assert loaded(tmp_path, "dinov3.pth", state).spec.name == "DINOv3"


def test_safetensors_of_mirage_with_its_prefix(tmp_path):
    path = tmp_path / "MIRAGE-Base.safetensors"
    save_file({f"model.{k}": v for k, v in layouts.mirage(MIRAGE)["model"].items()}, path)
    backbone = load_backbone(path, image_size=SIZE, num_heads=HEADS)
    assert backbone.spec.name == "MIRAGE"
    backbone.encoder.double()
    x = layouts.images(1)
    torch.testing.assert_close(
        backbone.tokens(x).patches, naive.mirage(MIRAGE, x, HEADS)[1], rtol=1e-9, atol=1e-9
    )


def test_student_serves_where_there_is_no_teacher(tmp_path):
    content = layouts.visionfm(PLAIN, OTHER)
    del content["teacher"]
    backbone = loaded(tmp_path, "VFM_OCT_weights.pth", content)
    assert backbone.spec.name == "VisionFM"
    for key, value in backbone.encoder.state_dict().items():
        torch.testing.assert_close(value, OTHER[key], rtol=0, atol=0)


def test_projection_of_a_refined_retfound_is_handed_on_apart(tmp_path):
    content = layouts.refined(PLAIN, 64)
    backbone = loaded(tmp_path, "RetFiner_RETFound.pth", content)
    assert backbone.projection.keys() == {"weight", "bias"}
    torch.testing.assert_close(backbone.projection["weight"], content["proj.weight"])
    assert loaded(tmp_path, "RetFiner_UrFound.pth", layouts.refined(PLAIN)).projection == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(tmp_path, dtype):
    halves = {key: value.to(dtype) for key, value in PLAIN.items()}
    backbone = loaded(tmp_path, "RETFound_fp16.pth", {"model": halves})
    for key, value in backbone.encoder.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, halves[key].float(), rtol=0, atol=0)


def test_no_dropout_and_no_stochastic_depth_in_training_mode(tmp_path):
    for name, content in (("RETFound.pth", layouts.mae(PLAIN)), ("MIRAGE.pth", {"model": MIRAGE})):
        backbone = loaded(tmp_path, name, content)
        x = layouts.images(backbone.spec.in_chans).float()
        still = backbone.tokens(x).patches
        backbone.encoder.train()
        torch.testing.assert_close(backbone.tokens(x).patches, still, rtol=0, atol=0)


def test_gradients_reach_every_trained_weight(tmp_path):
    for name, content in (("RETFound.pth", layouts.mae(PLAIN)), ("MIRAGE.pth", {"model": MIRAGE})):
        backbone = loaded(tmp_path, name, content)
        backbone.fusion_tokens(layouts.images(backbone.spec.in_chans).float()).pow(
            2
        ).sum().backward()
        for key, weight in backbone.encoder.named_parameters():
            fixed = key.endswith("pos_emb")  # MultiMAE's positions are fixed sines and cosines
            assert weight.requires_grad != fixed, key
            assert fixed or weight.grad.abs().sum() > 0, key


def test_hidden_width_off_the_usual_ratio_is_kept(tmp_path):
    state = layouts.vit(hidden=127)  # 127 / 48 * 48 truncates to 126 in floating point or not
    backbone = loaded(tmp_path, "RETFound.pth", {"model": state})
    assert backbone.encoder.blocks[0].mlp.fc1.out_features == 127


def test_weights_do_not_change_with_the_file_they_came_from(tmp_path):
    backbone = loaded(tmp_path, "RETFound.pth", layouts.mae(PLAIN))
    (tmp_path / "RETFound.pth").write_bytes(b"\0" * 10)
    torch.testing.assert_close(backbone.encoder.cls_token.data, PLAIN["cls_token"], rtol=0, atol=0)
