"""ONNX Runtime computes what the backbone computes, for any batch."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from retfiner.export.onnx import onnx_provenance, save_onnx
from retfiner.vision import backbone_from_state
from tests.helpers.small import fill, small_backbone
from tests.retfiner.vision import layouts


def named(name):
    return lambda: backbone_from_state(name, layouts.state_of(name), layouts.SIZE, layouts.HEADS)


MAKERS = {"plain ViT": lambda: small_backbone(48)}
MAKERS |= {name: named(name) for name in ("DINOv3", "EyeCLIP", "OCTCube", "MIRAGE")}


@pytest.fixture(scope="module", params=MAKERS.values(), ids=MAKERS)
def exported(tmp_path_factory, request):
    backbone = request.param()
    fill(backbone.encoder)
    backbone.encoder.eval()
    backbone.provenance = {"run_id": "abc"}
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(path, backbone)
    return backbone, path


@pytest.mark.parametrize("size", [1, 5])
@torch.no_grad()
def test_onnx_runtime_agrees(exported, size):
    backbone, path = exported
    session = onnxruntime.InferenceSession(path)
    shape = (size, *backbone.input_shape)
    images = np.random.default_rng(size).standard_normal(shape).astype(np.float32)
    tokens, features = session.run(["tokens", "features"], {"images": images})
    inputs = torch.from_numpy(images)
    np.testing.assert_allclose(tokens, backbone.fusion_tokens(inputs), atol=1e-4)
    np.testing.assert_allclose(features, backbone.features(inputs), atol=1e-4)


def test_the_file_says_how_images_are_prepared(exported):
    backbone, path = exported
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(about["mean"]) == list(backbone.spec.mean)
    assert json.loads(about["std"]) == list(backbone.spec.std)
    assert about["image_size"] == "32"
    assert onnx_provenance(path) == {"run_id": "abc"}


def test_another_file_has_no_provenance(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\xff\xfe not a model")
    assert onnx_provenance(tmp_path / "model.onnx") == {}
