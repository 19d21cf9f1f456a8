"""Rollout follows the attention that the encoders really use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import Attention
from timm.models.eva import EvaAttention
from torch import nn

from retfiner.common.errors import InputError
from retfiner.explanation.rollout import rollout, self_attention
from retfiner.vision import BACKBONES, Backbone, backbone_from_state
from retfiner.vision.mirage import MirageEncoder
from tests.helpers.small import fill, small_backbone
from tests.retfiner.vision import layouts


def mirage_backbone():
    encoder = MirageEncoder(width=48, depth=2, heads=4, mlp_ratio=2, patch=8, image_size=32)
    return Backbone(BACKBONES["MIRAGE"], encoder, 32, 4)


def images_for(backbone):
    shape = (2, backbone.spec.in_chans, 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def dinov3_backbone():
    return backbone_from_state("DINOv3", layouts.dinov3(), 32, 4)


MAKERS = {"plain ViT": small_backbone, "MIRAGE": mirage_backbone, "DINOv3": dinov3_backbone}


@pytest.fixture(params=MAKERS.values(), ids=list(MAKERS))
def backbone(request):
    backbone = request.param()
    backbone.encoder.double().eval()
    fill(backbone.encoder)
    return backbone


def test_probabilities_are_those_of_the_fused_attention(backbone):
    """Mixing the values by them gives what each attention layer gave."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda m, x, y: seen.append((m, x[0].detach(), y.detach())))
        for module in backbone.encoder.modules()
        if isinstance(module, Attention | EvaAttention)
    ]
    found = self_attention(backbone, images_for(backbone))
    for hook in hooks:
        hook.remove()
    assert len(found) == len(seen) == 2
    for probabilities, (layer, states, output) in zip(found, seen, strict=True):
        values = layer.qkv(states)[..., 2 * 48 :] + getattr(layer, "v_bias", 0)
        values = values.unflatten(-1, (4, 12)).transpose(1, 2)
        mixed = layer.proj((probabilities @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed, output, atol=1e-10, rtol=1e-10)
    assert not any(m._forward_hooks for m in backbone.encoder.modules()), "hooks are gone"
    assert all(m.fused_attn for m in backbone.encoder.modules() if hasattr(m, "fused_attn"))


def test_rollout_against_loops(backbone):
    images = images_for(backbone)
    layers = [p[1].numpy() for p in self_attention(backbone, images)]
    tokens = layers[0].shape[-1]
    flow = np.eye(tokens)
    for probabilities in layers:
        step = np.zeros((tokens, tokens))
        for i in range(tokens):
            for j in range(tokens):
                step[i, j] = 0.5 * probabilities[:, i, j].mean() + 0.5 * (i == j)
        flow = step @ flow
    is_mirage = backbone.spec.name == "MIRAGE"
    expected = flow[-1, :-1] if is_mirage else flow[0, -16:]
    found = rollout(backbone, images)
    assert found.shape == (2, 4, 4)
    np.testing.assert_allclose(found[1].numpy().ravel(), expected, rtol=1e-10)


def test_an_encoder_without_attention_is_refused():
    backbone = small_backbone()
    backbone.encoder = nn.Sequential(nn.Flatten())
    with pytest.raises(InputError, match="cannot be followed"):
        rollout(backbone, torch.zeros(1, 3, 32, 32))
