"""The plain vision transformer (Dosovitskiy et al., 2021) most backbones share.

Built by timm, whose ``VisionTransformer`` has the very keys of the published checkpoints.
Everything but the number of heads is read from the shapes of the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from retfiner.common.errors import InputError, shorten
from retfiner.vision.features import ImageTokens
from retfiner.vision.keys import encoder_part, has_text_encoder, unwrap
from retfiner.vision.reading import RawCheckpoint
from retfiner.vision.spec import State

WIDTH_PER_HEAD = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Heads by width in the ViT family: 64 channels each, 80 in ViT-H."""

ESSENTIAL = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
"""Keys by which a plain ViT is known."""


@dataclass(frozen=True)
class ViTShape:
    """What the shapes of a plain ViT's weights tell.

    Attributes:
        width: Token width D.
        depth: Number of blocks.
        patch: Side length of a patch in pixels.
        in_chans: Number of input channels.
        hidden: Width of the MLP's hidden layer.
        qkv_bias: Whether the attention's query, key and value have a bias.
        layer_scale: Whether the blocks have LayerScale.
        registers: Number of register tokens.
        embedded_prefix: Number of prefix tokens that have a position embedding.
        grid: Side length of the position embedding's grid.
    """

    width: int
    depth: int
    patch: int
    in_chans: int
    hidden: int
    qkv_bias: bool
    layer_scale: bool
    registers: int
    embedded_prefix: int
    grid: int


def is_plain_vit(state: Iterable[str]) -> bool:
    """Say whether keys (without prefixes) are those of a plain ViT."""
    return set(ESSENTIAL) <= set(state)


def has_single_network_layout(raw: RawCheckpoint) -> bool:
    """Recognise a plain ViT without LayerScale and registers that has no teacher or student."""
    wrapper, state = unwrap(raw)
    return (
        wrapper not in ("teacher", "student")
        and is_plain_vit(state)
        and not {"blocks.0.ls1.gamma", "reg_token", "register_tokens"} & state.keys()
    )


def has_mae_layout(raw: RawCheckpoint) -> bool:
    """Recognise a masked autoencoder, or a bare ViT as after extraction or refinement."""
    return has_single_network_layout(raw) and not has_text_encoder(raw)


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Give a plain ViT's own keys, as timm names them.

    DINOv2 stores registers as ``register_tokens`` and a position for CLS alone; timm adds that
    position to the CLS token instead, which is the same function.

    Args:
        raw: A checkpoint in any layout this package knows.

    Raises:
        InputError: If the encoder's final norm was replaced in fine-tuning.
    """
    state = encoder_part(unwrap(raw).state)
    registers = state.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= state.keys():
        positions = state["pos_embed"]
        state["reg_token"] = registers
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]
    return state


def shape_of(state: State) -> ViTShape:
    """Read a plain ViT's dimensions from its weights.

    Args:
        state: A repaired state; only its shapes are read.

    Raises:
        InputError: If the keys or shapes are not those of a plain ViT.
    """
    needed = (*ESSENTIAL, "blocks.0.mlp.fc1.weight")
    missing = [key for key in needed if key not in state]
    if missing:
        raise InputError(
            "The weights are not those of a plain vision transformer",
            got=shorten(sorted(state)),
            expected=f"also {', '.join(missing)}",
            remedy="name the backbone with --backbone, or give its published checkpoint",
        )
    width, in_chans, patch, patch_w = _four(state["patch_embed.proj.weight"])
    if patch != patch_w:
        raise InputError("Patches must be square", got=f"{patch} x {patch_w}")
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    prefix, grid = _grid(state["pos_embed"].shape[1], registers)
    return ViTShape(
        width=width,
        depth=1 + max(int(m[1]) for k in state if (m := re.match(r"blocks\.(\d+)\.", k))),
        patch=patch,
        in_chans=in_chans,
        hidden=state["blocks.0.mlp.fc1.weight"].shape[0],
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        layer_scale="blocks.0.ls1.gamma" in state,
        registers=registers,
        embedded_prefix=prefix,
        grid=grid,
    )


def build(state: State, image_size: int, num_heads: int) -> VisionTransformer:
    """Build a plain ViT without trained weights, dropout or stochastic depth.

    Args:
        state: A repaired state; only its shapes are read.
        image_size: Side length of the input in pixels.
        num_heads: Number of attention heads.

    Raises:
        InputError: If the shapes do not go together.
    """
    shape = shape_of(state)
    check_sizes(shape.width, shape.patch, image_size, num_heads)
    return VisionTransformer(
        img_size=image_size,
        patch_size=shape.patch,
        in_chans=shape.in_chans,
        num_classes=0,
        global_pool="",
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=num_heads,
        # timm takes a ratio and truncates: half a unit more keeps the hidden width exact.
        mlp_ratio=(shape.hidden + 0.5) / shape.width,
        qkv_bias=shape.qkv_bias,
        init_values=1e-5 if shape.layer_scale else None,
        class_token=True,
        no_embed_class=shape.embedded_prefix == 0,
        reg_tokens=shape.registers,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        weight_init="skip",
    )


def resize(state: State, image_size: int) -> dict[str, Tensor]:
    """Interpolate the position embedding (bicubic) to an image size; prefix tokens keep theirs.

    Args:
        state: A repaired state.
        image_size: Side length of the input in pixels.
    """
    shape = shape_of(state)
    grid = image_size // shape.patch
    resized = dict(state)
    if grid != shape.grid:
        resized["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"], [grid, grid], num_prefix_tokens=shape.embedded_prefix
        )
    return resized


def usual_heads(state: State) -> int | None:
    """Give the ViT family's number of heads for a width, None for a width of no family member."""
    return WIDTH_PER_HEAD.get(state["cls_token"].shape[-1]) if "cls_token" in state else None


def tokens(encoder: nn.Module, images: Tensor) -> ImageTokens:
    """Run a plain ViT up to its last block.

    Args:
        encoder: A timm ``VisionTransformer`` with a class token.
        images: (B, C, H, W), normalised.
    """
    if not isinstance(encoder, VisionTransformer):
        raise TypeError(f"expected a timm VisionTransformer, got {type(encoder).__name__}")
    [(patches, prefix)] = encoder.forward_intermediates(
        images,
        indices=1,
        return_prefix_tokens=True,
        norm=False,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return ImageTokens(prefix, patches)


def check_sizes(width: int, patch: int, image_size: int, num_heads: int) -> None:
    """Refuse an image size or a number of heads that the weights cannot have.

    Raises:
        InputError: If the patches do not tile the image, or the heads do not divide the width.
    """
    if image_size < patch or image_size % patch:
        raise InputError(
            "Patches must tile the image exactly",
            got=f"an image size of {image_size} and patches of {patch} pixels",
            expected=f"a multiple of {patch}",
            remedy="choose another image_size",
        )
    if num_heads < 1 or width % num_heads:
        raise InputError(
            "The number of attention heads must divide the width",
            got=f"{num_heads} heads, width {width}",
            remedy="give the num_heads the backbone was trained with",
        )


def _four(weight: Tensor) -> tuple[int, int, int, int]:
    if weight.ndim != 4:
        raise InputError(
            "patch_embed.proj.weight must be a two-dimensional convolution's",
            got=tuple(weight.shape),
            expected="(D, C, patch, patch)",
        )
    out, channels, height, width = weight.shape
    return out, channels, height, width


def _grid(length: int, registers: int) -> tuple[int, int]:
    """Split a position embedding's length into prefix tokens and a square grid."""
    for prefix in (1, 0, 1 + registers):
        grid = math.isqrt(max(length - prefix, 0))
        if grid and grid * grid == length - prefix:
            return prefix, grid
    raise InputError(
        "The position embedding belongs to no square grid of patches",
        got=f"{length} positions",
        expected="a square number, plus one for CLS or one for each prefix token",
    )


def flat(state: State) -> dict[str, Tensor]:
    """Lay keys out as a bare state dict, as timm and DINOv2 publish them."""
    return dict(state)


def under_model(state: State) -> dict[str, dict[str, Tensor]]:
    """Lay keys out as MAE-like training code does and its fine-tuning code expects."""
    return {"model": dict(state)}


def under_teacher(state: State) -> dict[str, dict[str, Tensor]]:
    """Lay keys out as self-distillation (DINO, iBOT, DINOv2) publishes its teacher."""
    return {"teacher": {f"backbone.{key}": value for key, value in state.items()}}
