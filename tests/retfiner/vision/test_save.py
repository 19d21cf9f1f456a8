"""What we write is read back bit by bit, by us and by the base models' own code."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES, Backbone, backbone_from_state, load_backbone, save_backbone

from . import layouts
from .layouts import DEPTH, HEADS, PATCH, SIZE, WIDTH

TIMM = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "img_size": SIZE, "num_classes": 0}


def make(name: str) -> Backbone:
    backbone = backbone_from_state(name, layouts.state_of(name), SIZE, HEADS)
    backbone.provenance = {"epochs": 4, "losses": ["itc", "itm"], "base_weights": "a.pth"}
    return backbone


def equal(left: nn.Module, right: nn.Module) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)


@pytest.mark.parametrize("format", ["base", "safetensors"])
@pytest.mark.parametrize("name", BACKBONES)
def test_round_trip_under_a_name_that_says_nothing(tmp_path, name, format):
    backbone = make(name)
    path = tmp_path / f"encoder{'.pth' if format == 'base' else '.safetensors'}"
    save_backbone(path, backbone, format)
    again = load_backbone(path)
    assert again.spec is backbone.spec
    assert (again.image_size, again.num_heads) == (SIZE, HEADS)
    assert again.provenance == backbone.provenance | {"weights_file": path.name}
    equal(again.encoder, backbone.encoder)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    # The encoder itself takes no part in what is written.
    assert all(value.device.type == "cpu" for value in again.encoder.state_dict().values())


def test_loaded_once_more_and_saved_again_is_the_same_file_content(tmp_path):
    save_backbone(tmp_path / "a.pth", make("RETFound"))
    save_backbone(tmp_path / "b.pth", load_backbone(tmp_path / "a.pth"))
    equal(load_backbone(tmp_path / "b.pth").encoder, make("RETFound").encoder)
    assert load_backbone(tmp_path / "b.pth").provenance["weights_file"] == "b.pth"


@pytest.mark.parametrize("name", ["RETFound", "MAE", "UrFound"])
def test_fine_tuning_code_of_masked_autoencoders_reads_it(tmp_path, name):
    backbone = make(name)
    save_backbone(tmp_path / "x.pth", backbone)
    model = VisionTransformer(
        img_size=SIZE,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=5,
        global_pool="avg",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    weights = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)["model"]
    result = model.load_state_dict(weights, strict=False)
    assert set(result.missing_keys) == {
        "head.weight",
        "head.bias",
        "fc_norm.weight",
        "fc_norm.bias",
    }
    assert set(result.unexpected_keys) == {"norm.weight", "norm.bias"}  # it pools without them
    torch.testing.assert_close(
        model.blocks[1].mlp.fc1.weight, backbone.encoder.blocks[1].mlp.fc1.weight
    )


def test_fine_tuning_code_of_visionfm_reads_it(tmp_path):
    backbone = make("VisionFM")
    save_backbone(tmp_path / "x.pth", backbone)
    teacher = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)["teacher"]
    assert all(key.startswith("backbone.") for key in teacher)
    weights = {k.replace("module.", "").replace("backbone.", ""): v for k, v in teacher.items()}
    model = timm.create_model(
        "vit_base_patch16_224",
        **TIMM | {"patch_size": PATCH},
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model.load_state_dict(weights, strict=True)
    equal(model, backbone.encoder)


def test_usage_code_of_green_reads_it(tmp_path):
    backbone = make("RETFound-Green")
    save_backbone(tmp_path / "x.pth", backbone)
    model = timm.create_model(
        "vit_small_patch14_reg4_dinov2",
        **TIMM,
        patch_size=PATCH,
        checkpoint_path=str(tmp_path / "x.pth"),
    )
    equal(model, backbone.encoder)


@pytest.mark.parametrize("name", ["RETFound", "UrFound", "VisionFM"])
def test_timm_reads_its_format(tmp_path, name):
    backbone = make(name)
    path = tmp_path / "x.safetensors"
    save_backbone(path, backbone, "timm")
    model = timm.create_model(
        "vit_base_patch16_224", **TIMM, patch_size=PATCH, checkpoint_path=str(path)
    ).eval()
    equal(model, backbone.encoder)
    x = layouts.images().float()
    cls = backbone.features(x, "cls_token")
    torch.testing.assert_close(model(x), cls, rtol=1e-5, atol=1e-5)


def test_published_safetensors_keys_of_mirage(tmp_path):
    save_backbone(tmp_path / "m.safetensors", make("MIRAGE"), "safetensors")
    keys = load_file(tmp_path / "m.safetensors").keys()
    assert keys == {f"model.{key}" for key in layouts.mirage_state()}
    save_backbone(tmp_path / "m.pth", make("MIRAGE"))
    content = torch.load(tmp_path / "m.pth", weights_only=True)
    assert content["model"].keys() == layouts.mirage_state().keys()


@pytest.mark.parametrize("name", ["MIRAGE", "OCTCube"])
def test_what_timm_has_no_model_for(tmp_path, name):
    with pytest.raises(InputError, match="cannot be written for timm") as caught:
        save_backbone(tmp_path / "m.safetensors", make(name), "timm")
    assert BACKBONES[name].title in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("DINOv3", "vit_small_patch16_dinov3_qkvb"),
        ("EyeCLIP", "vit_base_patch32_clip_quickgelu_224"),
    ],
)
def test_timm_computes_the_same_of_its_format(tmp_path, name, model):
    backbone = make(name)
    save_backbone(tmp_path / "x.safetensors", backbone, "timm")
    options = TIMM | {"patch_size": PATCH, "global_pool": "", "dynamic_img_size": False}
    hidden = backbone.encoder.blocks[0].mlp.fc1.out_features
    theirs = timm.create_model(
        model, **options, mlp_ratio=hidden / WIDTH, checkpoint_path=str(tmp_path / "x.safetensors")
    ).eval()
    equal(theirs, backbone.encoder)
    x = layouts.images().float()
    torch.testing.assert_close(
        theirs.forward_features(x), backbone.fusion_tokens(x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["DINOv3", "RETFound-DINOv3", "EyeCLIP", "OCTCube"])
def test_the_published_keys_come_back_to_the_bit(tmp_path, name):
    """But for what no encoder of single images uses, or what a formula gives."""
    save_backbone(tmp_path / "x.pth", make(name))
    content = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)
    entries = ("model_state_dict", "teacher", "model")
    written = next((content[entry] for entry in entries if entry in content), content)
    prefix = {"RETFound-DINOv3": "backbone.", "EyeCLIP": "visual."}
    state = {prefix.get(name, "") + k: v for k, v in layouts.state_of(name).items()}
    assert {k for k in written if k != "retfiner"} == state.keys()
    for key, value in state.items():
        seen = value * state.get(f"{key}_mask", 1.0)  # of a bias by Meta's code
        if not key.endswith(("mask_token", "periods")):
            torch.testing.assert_close(written[key], seen, rtol=0, atol=0)


def test_periods_are_those_of_metas_formula():
    periods = BACKBONES["DINOv3"].wrap({"cls_token": torch.zeros(1, 1, 384)})["rope_embed.periods"]
    expected = [100 ** (2 * j / 32) for j in range(16)]  # of ViT-S: 64 channels a head
    torch.testing.assert_close(periods, torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "format", "match"),
    [
        ("x.pth", "safetensors", "wrong suffix"),
        ("x.pth", "timm", "wrong suffix"),
        ("x.safetensors", "base", "wrong suffix"),
        ("x.pth", "onnx", "Unknown checkpoint format"),
    ],
)
def test_suffix_goes_with_the_format(tmp_path, name, format, match):
    with pytest.raises(InputError, match=match):
        save_backbone(tmp_path / name, make("RETFound"), format)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_replaced_only_when_all_is_written(tmp_path, monkeypatch):
    path: Path = tmp_path / "x.pth"
    save_backbone(path, make("RETFound"))
    before = path.read_bytes()
    broken = make("RETFound")
    broken.provenance["bad"] = (i for i in ())  # type: ignore[assignment]  # cannot be pickled
    with pytest.raises(TypeError):
        save_backbone(path, broken)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]
