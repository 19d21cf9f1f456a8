"""Which backbone a file is of: content first, the file's name second, otherwise an error."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES, RawCheckpoint, load_backbone, resolve_backbone

from . import layouts
from .layouts import HEADS, SIZE

PLAIN = layouts.vit()
SCALED = layouts.vit(layer_scale=True)
MIRAGE = layouts.mirage_state()


def resolve(content: dict, name: str, requested: str = "auto", **metadata: object) -> str:
    return resolve_backbone(RawCheckpoint(content, metadata), Path(name), requested).name


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        # The folder says nothing, in any direction.
        (layouts.mae(PLAIN), "weights/retfound/mae_vit.pth", "MAE"),
        (layouts.mae(PLAIN), "weights/mae/RETFound.pth", "RETFound"),
        (layouts.refined(PLAIN), "retfound/urfound/RetFiner_VisionFM.pth", "VisionFM"),
        # Content goes before the name.
        (layouts.urfound(PLAIN), "RETFound.pth", "UrFound"),
        (layouts.visionfm(PLAIN, PLAIN), "RETFound_mae.pth", "VisionFM"),
        (layouts.retfound_dinov2(SCALED), "visionfm.pth", "RETFound-DINOv2"),
        # A specific name goes before the name of a method, whatever the case.
        (layouts.mae(PLAIN), "retFOUND_mae_natureOCT.pth", "RETFound"),
        (SCALED, "retfound_dinov2.pth", "RETFound-DINOv2"),
        (SCALED, "dinov2_vits14.pth", "DINOv2"),
        (layouts.green(), "RETFoundGreen.pth", "RETFound-Green"),
        (layouts.dinov3(), "dinov3_vits16.pth", "DINOv3"),
        (layouts.dinov3(), "retfound_dinov3.pth", "RETFound-DINOv3"),
        (layouts.retfound_dinov3(layouts.dinov3()), "retfound_dinov3.pth", "RETFound-DINOv3"),
        (layouts.retfound_dinov3(layouts.dinov3()), "chestfound_dinov3.pth", "DINOv3"),
        (layouts.eyeclip(layouts.clip_visual()), "epoch10.pt", "EyeCLIP"),
        (layouts.octcube_published(layouts.octcube()), "RETFound.pth", "OCTCube"),
        (layouts.uni4eye(PLAIN), "RETFound.pth", "Uni4Eye++"),
        (layouts.refined(PLAIN), "RetFiner_Uni4Eye.pth", "Uni4Eye++"),
        (layouts.green(), "vit_small_patch14_reg4_dinov2.pth", "DINOv2"),
        ({"model": MIRAGE}, "MIRAGE-Base-mae.pth", "MIRAGE"),
        ({"model": MIRAGE}, "in-house_MultiMAE.pth", "MultiMAE"),
        # Other wrappings of the same weights.
        ({"state_dict": PLAIN}, "mae.pth", "MAE"),
        ({"model_state_dict": {f"module.{k}": v for k, v in PLAIN.items()}}, "mae.pth", "MAE"),
        ({"state_dict": {f"model.vision_encoder.{k}": v for k, v in PLAIN.items()}}, "mae", "MAE"),
    ],
)
def test_recognised(content, name, expected):
    assert resolve(content, name) == expected


@pytest.mark.parametrize(
    ("content", "name", "listed"),
    [
        (layouts.mae(PLAIN), "checkpoint-799.pth", ["RETFound", "MAE"]),
        (layouts.mae(PLAIN), "retfound/checkpoint.pth", ["RETFound", "MAE"]),
        (layouts.mae(PLAIN), "maestro.pth", ["RETFound", "MAE"]),
        (PLAIN, "best.pth", ["RETFound", "UrFound", "VisionFM", "Uni4Eye++", "MAE"]),
        (PLAIN, "retfound_or_urfound.pth", ["RETFound", "UrFound", "VisionFM", "Uni4Eye++", "MAE"]),
        (layouts.dinov3(), "model.safetensors", ["RETFound-DINOv3", "DINOv3"]),
        (SCALED, "visionfm.pth", ["RETFound-DINOv2", "DINOv2"]),
        ({"model": MIRAGE}, "base.pth", ["MIRAGE", "MultiMAE"]),
    ],
)
def test_never_guessed(content, name, listed):
    with pytest.raises(InputError) as caught:
        resolve(content, name)
    expected = next(line for line in str(caught.value).splitlines() if "expected:" in line)
    assert expected.split("one of ")[1].split(", ") == listed
    assert "--backbone" in str(caught.value)


def test_architecture_in_the_arguments_is_content():
    content = {"model": PLAIN, "args": Namespace(model="RETFound_mae")}
    assert resolve(content, "mae.pth") == "RETFound"
    # All masked autoencoders train under this name, RETFound as well.
    content["args"] = Namespace(model="mae_vit_large_patch16")
    assert resolve(content, "retfound.pth") == "RETFound"
    with pytest.raises(InputError, match="several backbones"):
        resolve(content, "checkpoint.pth")


def test_our_own_word_decides_before_anything_else():
    assert resolve(PLAIN, "RETFound.pth", backbone="VisionFM") == "VisionFM"
    assert resolve(PLAIN, "x.pth", backbone="timm/vit_tiny_patch16_224") == (
        "timm/vit_tiny_patch16_224"
    )


@pytest.mark.parametrize("name", ["retfound", "RETFOUND", "RETFound"])
def test_request_wins_over_the_name_in_any_case(name):
    assert resolve(layouts.mae(PLAIN), "urfound_mae.pth", name) == "RETFound"


@pytest.mark.parametrize(
    ("content", "requested"),
    [
        (layouts.urfound(PLAIN), "RETFound"),
        (layouts.mae(PLAIN), "VisionFM"),
        (layouts.mae(PLAIN), "UrFound"),
        (layouts.visionfm(PLAIN, PLAIN), "RETFound"),
        ({"teacher": PLAIN, "dino_loss": {}}, "VisionFM"),
        (layouts.mae(PLAIN), "MIRAGE"),
        ({"model": MIRAGE}, "MAE"),
        ({"model": MIRAGE}, "timm/vit_tiny_patch16_224"),
        (SCALED, "RETFound"),
        (layouts.green(), "RETFound-DINOv2"),
        (layouts.dinov3(), "DINOv2"),
        (SCALED, "DINOv3"),
        (layouts.dinov3(), "timm/vit_tiny_patch16_224"),
        (SCALED, "timm/vit_small_patch16_dinov3"),
        (layouts.eyeclip(layouts.clip_visual()), "RETFound"),
        (layouts.uni4eye(PLAIN), "RETFound"),
    ],
)
def test_request_that_the_content_contradicts(content, requested):
    with pytest.raises(InputError, match=f"not a checkpoint of {requested}"):
        resolve(content, "x.pth", requested)


def test_request_that_our_own_word_contradicts():
    with pytest.raises(InputError, match="not a checkpoint of RETFound") as caught:
        resolve(PLAIN, "x.pth", "RETFound", backbone="UrFound")
    assert "UrFound" in str(caught.value)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        resolve(PLAIN, "x.pth", "RETFond")
    assert all(name in str(caught.value) for name in BACKBONES)


def test_unknown_layout_lists_the_known_names():
    with pytest.raises(InputError, match="layout of no known backbone") as caught:
        resolve({"net.weight": torch.ones(1)}, "mlp.pth")
    assert "RETFound" in str(caught.value)
    assert "--backbone" in str(caught.value)


def test_registry_is_keyed_by_the_specs_own_names():
    assert {name: spec.name for name, spec in BACKBONES.items()} == {n: n for n in BACKBONES}
    for spec in BACKBONES.values():
        assert spec.title, spec.name
        assert spec.licence, spec.name
        assert spec.source.startswith("https://"), spec.name
        assert spec.citation, spec.name


def test_folder_of_a_real_file_says_nothing(tmp_path):
    (tmp_path / "retfound").mkdir()
    path = tmp_path / "retfound" / "checkpoint.pth"
    torch.save(layouts.mae(PLAIN), path)
    with pytest.raises(InputError, match="several backbones"):
        load_backbone(path, image_size=SIZE, num_heads=HEADS)
    assert load_backbone(path, "mae", SIZE, HEADS).spec.name == "MAE"
