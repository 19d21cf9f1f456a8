"""Attention rollout: where the summary of an image comes from, through all layers of the ViT."""

from __future__ import annotations

from functools import reduce

import torch
from timm.layers import Attention
from timm.models.eva import EvaAttention
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.vision import Backbone
from retfiner.vision.mirage import MirageEncoder


@torch.no_grad()
def rollout(backbone: Backbone, images: Tensor) -> Tensor:
    """Follow attention from CLS back to the patches (Abnar and Zuidema, 2020).

    Each layer's attention, mean over heads, is mixed half and half with the identity for the
    residual path, and the layers are multiplied.

    Returns:
        (B, g, g) share of each patch in CLS; the prefix tokens' shares are left out.

    Raises:
        InputError: If the encoder has no attention of timm.
    """
    layers = [probabilities.mean(1) for probabilities in self_attention(backbone, images)]
    identity = torch.eye(layers[0].shape[-1]).to(layers[0])
    mixed = [(layer + identity) / 2 for layer in layers]
    flow = reduce(lambda flow, layer: layer @ flow, mixed)
    side = backbone.image_size // backbone.patch_size
    if isinstance(backbone.encoder, MirageEncoder):  # its global token comes last
        return flow[:, -1, : side * side].unflatten(-1, (side, side))
    return flow[:, 0, -side * side :].unflatten(-1, (side, side))


@torch.no_grad()
def self_attention(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """Compute the attention probabilities of every layer, (B, heads, T, T) each.

    Raises:
        InputError: If the encoder has no attention of timm.
    """
    kinds = Attention | EvaAttention
    layers = [module for module in backbone.encoder.modules() if isinstance(module, kinds)]
    if not layers:
        raise InputError(
            "The attention of this vision encoder cannot be followed",
            got=type(backbone.encoder).__name__,
            expected="a vision transformer of timm's blocks",
        )
    kept: list[Tensor] = []
    fused = [layer.fused_attn for layer in layers]
    hooks = [
        layer.attn_drop.register_forward_hook(lambda module, inputs, output: kept.append(output))
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.fused_attn = False  # the fused kernel never forms the probabilities
        backbone.tokens(images)
    finally:
        for layer, was_fused, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = was_fused
            hook.remove()
    return kept
