"""transformers loads what we write and computes the same."""

import json
from functools import partial

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from retfiner.common.errors import InputError
from retfiner.export import hf
from retfiner.export.hf import hf_provenance, push_folder, save_hf
from retfiner.vision import BACKBONES, Backbone, backbone_from_state
from tests.helpers.small import fill, small_backbone
from tests.retfiner.vision import layouts


def dino(registers=0, embeds_cls=True, hidden=4):
    encoder = VisionTransformer(
        img_size=28, patch_size=7, embed_dim=48, depth=3, num_heads=3, num_classes=0,
        global_pool="", init_values=1e-5, reg_tokens=registers, no_embed_class=not embeds_cls,
        mlp_ratio=hidden, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    return Backbone(BACKBONES["DINOv2"], encoder, 28, 3)


CASES = {
    "RETFound": (lambda: small_backbone(48, heads=4), "ViTModel"),
    "VisionFM": (lambda: small_backbone(48, "VisionFM", heads=2), "ViTModel"),
    "DINOv2": (dino, "Dinov2Model"),
    "registers": (lambda: dino(4, embeds_cls=False), "Dinov2WithRegistersModel"),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_transformers_computes_the_same(tmp_path, case):
    make, architecture = CASES[case]
    backbone = make()
    fill(backbone.encoder)
    backbone.encoder.eval()
    save_hf(tmp_path, backbone)
    options = {"add_pooling_layer": False} if architecture == "ViTModel" else {}
    model, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True, **options)
    assert type(model).__name__ == architecture
    assert not any(info.values()), info
    size = backbone.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = backbone.norm(torch.cat(backbone.tokens(images), 1))
    ours = model(pixel_values=images).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_processor_normalises_as_the_backbone_asks(tmp_path):
    backbone = small_backbone(48, "VisionFM", heads=2)
    save_hf(tmp_path, backbone)
    values = AutoImageProcessor.from_pretrained(tmp_path)(
        images=torch.full((3, 40, 50), 255, dtype=torch.uint8), return_tensors="pt"
    )["pixel_values"]
    assert values.shape == (1, 3, 32, 32)
    white = (1 - torch.tensor(backbone.spec.mean)) / torch.tensor(backbone.spec.std)
    torch.testing.assert_close(values[0, :, 5, 5], white, atol=1e-5, rtol=1e-5)


def test_where_it_comes_from_stays_with_it(tmp_path):
    backbone = small_backbone(48)
    backbone.provenance = {"run_id": "abc", "step": 3}
    save_hf(tmp_path, backbone)
    assert hf_provenance(tmp_path) == backbone.provenance
    assert AutoConfig.from_pretrained(tmp_path).hidden_size == 48
    (tmp_path / "config.json").write_text(json.dumps([1]))
    assert hf_provenance(tmp_path) == {}


def test_an_mlp_that_transformers_cannot_build_is_refused(tmp_path):
    with pytest.raises(InputError, match="MLP of this width"):
        save_hf(tmp_path, dino(hidden=2.5))
    assert not list(tmp_path.iterdir())


def without_norm():
    backbone = small_backbone(48)
    backbone.encoder.norm = nn.Identity()
    return backbone


OTHERS = ("DINOv3", "EyeCLIP", "OCTCube", "MIRAGE")


@pytest.mark.parametrize("name", [None, *OTHERS])
def test_no_plain_vit_is_refused(tmp_path, name):
    backbone = (
        without_norm()
        if name is None
        else backbone_from_state(name, layouts.state_of(name), layouts.SIZE, layouts.HEADS)
    )
    with pytest.raises(InputError, match="cannot be written for transformers"):
        save_hf(tmp_path, backbone)
    assert not list(tmp_path.iterdir())


def test_an_upload_is_private(tmp_path, monkeypatch):
    calls = {}

    class Api:
        def create_repo(self, name, **options):
            calls["repository"] = (name, options)

        def upload_folder(self, **options):
            calls["folder"] = options

    monkeypatch.setattr(hf, "HfApi", Api)
    assert push_folder(tmp_path, "somebody/retfiner").endswith("private")
    assert calls["repository"] == ("somebody/retfiner", {"private": True, "exist_ok": True})
    assert calls["folder"] == {"repo_id": "somebody/retfiner", "folder_path": tmp_path}


def test_an_upload_that_fails_says_so(tmp_path, monkeypatch):
    save_hf(tmp_path, small_backbone(48))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot be uploaded as somebody/retfiner"):
        push_folder(tmp_path, "somebody/retfiner")
