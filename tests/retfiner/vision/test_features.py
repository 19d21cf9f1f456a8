"""Probing features: figures of the published protocol, and a loop written from its definition."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from retfiner.common.errors import InputError
from retfiner.vision import (
    BACKBONES,
    METHODS,
    Backbone,
    ImageTokens,
    backbone_from_state,
    feature_width,
    probing_features,
)

from . import layouts, naive

ASSET = Path(__file__).parents[2] / "assets" / "probing_features.json"
FIGURES = json.loads(ASSET.read_text(encoding="utf-8"))
KINDS = ("concat_prenorm", "concat_postnorm", "global_pool", "cls_token")


def fill(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    x = 0.2 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    before, _, last = name.rpartition(".")
    return torch.from_numpy(1 + x if last == "weight" and "norm" in before else x)


@pytest.fixture(scope="module")
def protocol() -> tuple[Backbone, torch.Tensor]:
    """Give the fixed ViT and the fixed batch the figures were computed with."""
    shapes = layouts.vit_shapes(width=48, depth=2, patch=8, positions=17)
    state = {name: fill(name, shape) for name, shape in shapes.items()}
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3, 32, 32)))
    return backbone_from_state("RETFound", state, image_size=32, num_heads=4), images


@pytest.mark.parametrize("method", KINDS)
def test_figures_of_the_protocol(protocol, method):
    backbone, images = protocol
    features = backbone.features(images, method).detach().numpy()
    figures = FIGURES[method]
    assert list(features.shape) == figures["shape"]
    assert features.shape[1] == feature_width(backbone.width, method)
    for key, got in (
        ("row0_first8", features[0, :8]),
        ("row0_last8", features[0, -8:]),
        ("row5_first8", features[5, :8]),
        ("abs_sum", np.abs(features).sum()),
    ):
        np.testing.assert_allclose(got, figures[key], rtol=1e-8, atol=1e-8)


def test_no_figure_is_left_unused():
    assert set(KINDS) == {k for k, v in FIGURES.items() if isinstance(v, dict)} - {"vision"}
    assert set(METHODS) == {*KINDS, "concat"}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("RETFound", "concat_prenorm"),
        ("UrFound", "concat_prenorm"),
        ("MAE", "concat_prenorm"),
        ("MIRAGE", "concat_prenorm"),
        ("VisionFM", "concat_postnorm"),
        ("RETFound-DINOv2", "concat_postnorm"),
        ("RETFound-Green", "concat_postnorm"),
        ("DINOv2", "concat_postnorm"),
        ("DINOv3", "concat_postnorm"),
        ("RETFound-DINOv3", "concat_postnorm"),
        ("EyeCLIP", "concat_postnorm"),
        ("OCTCube", "concat_postnorm"),
        ("Uni4Eye++", "concat_prenorm"),
    ],
)
def test_own_definition_of_each_backbone(protocol, name, method):
    _, images = protocol
    assert BACKBONES[name].representation == method
    gray = BACKBONES[name].in_chans == 1
    state = layouts.state_of(name)
    backbone = backbone_from_state(name, {k: v.double() for k, v in state.items()}, 32, 4)
    images = images[:, :1] if gray else images
    own = backbone.features(images)
    assert own.shape == (6, feature_width(backbone.width)) == (6, 96)
    torch.testing.assert_close(own, backbone.features(images, "concat"), rtol=0, atol=0)
    torch.testing.assert_close(own, backbone.features(images, method), rtol=0, atol=0)


def test_mean_is_over_patches_alone_with_registers_as_without():
    """Only the first prefix token counts, however many there are."""
    g = torch.Generator().manual_seed(0)
    prefix, patches = torch.randn(3, 5, 6, generator=g), torch.randn(3, 7, 6, generator=g)
    norm = nn.LayerNorm(6)
    nn.init.normal_(norm.weight, generator=g)
    ones, zeros = torch.ones(12), torch.zeros(12)
    for row in range(3):
        mean = sum(patches[row, i] for i in range(7)) / 7
        expected = {
            "concat_prenorm": naive.layer_norm(torch.cat([mean, prefix[row, 0]]), ones, zeros),
            "concat_postnorm": torch.cat(
                [norm(prefix[row, 0]), sum(norm(patches[row, i]) for i in range(7)) / 7]
            ),
            "global_pool": naive.layer_norm(mean, ones[:6], zeros[:6]),
            "cls_token": norm(prefix[row, 0]),
        }
        for method, vector in expected.items():
            got = probing_features(ImageTokens(prefix, patches), norm, method)[row]
            torch.testing.assert_close(got, vector, rtol=1e-5, atol=1e-5)


def test_encoder_without_a_final_norm_gives_its_tokens_as_they_are():
    tokens = ImageTokens(torch.randn(2, 1, 4), torch.randn(2, 3, 4))
    torch.testing.assert_close(probing_features(tokens, None, "cls_token"), tokens.prefix[:, 0])


def test_unknown_method_lists_the_known_ones(protocol):
    backbone, images = protocol
    for method in ("concat_norm", "CLS", ""):
        with pytest.raises(InputError, match="concat_postnorm"):
            backbone.features(images, method)
        with pytest.raises(InputError, match="concat_postnorm"):
            feature_width(backbone.width, method)


def test_width_of_each_method(protocol):
    widths = {method: feature_width(protocol[0].width, method) for method in METHODS}
    assert widths == {m: 96 if m.startswith("concat") else 48 for m in METHODS}
