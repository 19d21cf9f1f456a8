"""Any plain ViT of timm by its id, with weights from a local file."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES, load_backbone, save_backbone, spec_named

from . import layouts, naive

NAME = "timm/vit_tiny_patch16_224.augreg_in21k"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Write a file as timm publishes it: the classifier included, of random weights."""
    shapes = layouts.vit_shapes(width=192, depth=12, patch=16, positions=197)
    state = layouts.filled(shapes) | {"head.weight": torch.ones(9, 192), "head.bias": torch.ones(9)}
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(state, path)
    return path, state


def test_loads_and_computes(published):
    path, state = published
    backbone = load_backbone(path, NAME, image_size=32)
    assert (backbone.num_heads, backbone.width, backbone.patch_size) == (3, 192, 16)
    resized = backbone.encoder.state_dict()
    assert resized.keys() == state.keys() - {"head.weight", "head.bias"}
    backbone.encoder.double()
    x = layouts.images(size=32)
    prefix, patches = naive.vit(resized, x, heads=3)
    torch.testing.assert_close(backbone.tokens(x).patches, patches, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(backbone.tokens(x).prefix, prefix, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", ["vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
def test_dinov3_computes_what_timm_does(tmp_path, model):
    """With weights of timm's layout and of Meta's, at sizes that nothing is interpolated to."""
    torch.manual_seed(0)
    theirs = timm.create_model(model, num_classes=0, depth=2).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    state = theirs.state_dict()
    for name, content in (("timm.pth", state), ("meta.pth", BACKBONES["DINOv3"].wrap(state))):
        torch.save(content, tmp_path / name)
        for size in (32, 64):
            backbone = load_backbone(tmp_path / name, "DINOv3", image_size=size)
            assert (backbone.num_heads, backbone.notes) == (6, ())
            x = layouts.images(size=size).float()
            expected = theirs.forward_features(x)
            torch.testing.assert_close(backbone.fusion_tokens(x), expected, rtol=1e-4, atol=1e-4)


def test_a_dinov3_by_its_id(tmp_path):
    name = "timm/vit_small_patch16_dinov3.lvd1689m"
    torch.manual_seed(0)
    theirs = timm.create_model("vit_small_patch16_dinov3", num_classes=0).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    backbone = load_backbone(tmp_path / "model.safetensors", name, image_size=64)
    x = layouts.images(size=64).float()
    torch.testing.assert_close(
        backbone.fusion_tokens(x), theirs.forward_features(x), rtol=1e-5, atol=1e-5
    )
    save_backbone(tmp_path / "again.pth", backbone)
    assert load_backbone(tmp_path / "again.pth").spec.name == name
    with pytest.raises(InputError, match="q_bias"):
        load_backbone(tmp_path / "model.safetensors", "timm/vit_small_patch16_dinov3_qkvb")


def test_settings_are_timms(published):
    spec = spec_named(NAME)
    settings = timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k")
    assert (spec.mean, spec.std) == (settings.mean, settings.std) == ((0.5,) * 3, (0.5,) * 3)
    assert spec.image_size == 224
    assert spec.representation == "concat_postnorm"
    assert load_backbone(published[0], NAME).image_size == 224
    assert spec_named("timm/vit_small_patch14_dinov2.lvd142m").image_size == 518


def test_round_trip(published, tmp_path):
    backbone = load_backbone(published[0], NAME, image_size=32)
    for name, format in (("a.pth", "base"), ("b.safetensors", "timm")):
        save_backbone(tmp_path / name, backbone, format)
        again = load_backbone(tmp_path / name)
        assert (again.spec.name, again.image_size) == (NAME, 32)
        theirs = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=32,
            num_classes=0,
            checkpoint_path=str(tmp_path / name),
        ).state_dict()
        for key, value in again.encoder.state_dict().items():
            torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)


def test_id_of_another_size_is_refused_with_names(published):
    with pytest.raises(InputError, match=r"norm\.weight|another shape"):
        load_backbone(published[0], "timm/vit_small_patch16_224")


def test_heads_are_fixed(published):
    with pytest.raises(InputError, match="fixed number"):
        load_backbone(published[0], NAME, num_heads=6)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("timm/resnet18", "ResNet"),
        ("timm/vit_base_patch16_siglip_224", "VisionTransformer"),  # no class token
        ("timm/eva02_tiny_patch14_224", "Eva"),
        ("timm/vit_base_patch16_sapiens2", "Eva"),
        ("timm/deit_tiny_distilled_patch16_224", "VisionTransformerDistilled"),
        ("timm/vit_tiny_r_s16_p8_224", "VisionTransformer"),  # a convolutional stem
        ("timm/vit_huge_patch99", "no model"),
        ("timm/vit_tiny_patch16_224.nonsense", "nonsense"),
        ("timm/hf-hub:timm/vit", "no model"),
        ("timm/", "no model"),
    ],
)
def test_what_cannot_serve(name, found):
    with pytest.raises(InputError, match=found):
        spec_named(name)
