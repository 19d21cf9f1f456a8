"""The plain vision transformer (Dosovitskiy et al., 2021) most backbones share.

Built by timm, whose ``VisionTransformer`` has the very keys of the published checkpoints.
Everything but the number of heads is read from the shapes of the weights.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from timm.layers import resample_abs_pos_embed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from retfiner.common.errors import InputError, shorten
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.features import ImageTokens
from retfiner.vision.spec import Architecture, State
from retfiner.vision.state_dict import encoder_part, unwrap

WIDTH_PER_HEAD = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Heads by width in the ViT family: 64 channels each, 80 in ViT-H."""

ESSENTIAL = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
"""Keys by which a plain ViT is known."""

LAYER_SCALE, REGISTERS = "blocks.0.ls1.gamma", ("reg_token", "register_tokens")
TEXT_ENCODER, DECODER, CONTROLLER = "bert_", "decoder", "controller."
SINGLE, DISTILLED = ("", "model", "state_dict", "model_state_dict"), ("teacher", "student")
"""Entries of a checkpoint that hold one network's weights ("" for a flat file), or one of two."""


_CONVOLUTIONS = re.compile(r"(?:conv1|stem\.\d|layer1|stages|features\.0|.*\.running_mean$)")
_LANGUAGE = ("word_embeddings.weight", "wte.weight", "embed_tokens.weight")


def is_plain_vit(state: Iterable[str]) -> bool:
    """Say whether keys (without prefixes) are those of a plain ViT."""
    return set(ESSENTIAL) <= set(state)


def unsupported_kind(state: State) -> str | None:
    """Name the kind of network that keys (without prefixes) are of, where it is known and no ViT.

    Returns:
        None for a plain ViT and for what is not known.
    """
    patches = state.get("patch_embed.proj.weight")
    has_patches = patches is not None
    kinds = {
        "rotary positions of another kind than DINOv3's": any(
            "rope" in k.split(".")[0] for k in state
        ),
        "three-dimensional patches: an encoder of volumes or videos": has_patches
        and patches.ndim == 5,  # type: ignore[union-attr]
        "a transformer with relative positions (Swin or BEiT)": any(
            "relative_position_bias_table" in key for key in state
        ),
        "an encoder with the keys of OpenAI's CLIP or of open_clip": any(
            "resblocks." in key for key in state
        ),
        "the image encoder of a CLIP of transformers": "embeddings.class_embedding" in state,
        "a convolutional network": not has_patches
        and "cls_token" not in state
        and any(_CONVOLUTIONS.match(key) for key in state),
        "a language model": any(key.endswith(_LANGUAGE) for key in state),
        "adapters (LoRA) without the weights they adapt": bool(state)
        and all(".lora_" in key for key in state),
        "the decoder of a masked autoencoder alone": bool(state)
        and all(key.startswith((DECODER, "mask_token")) for key in state),
        "a vision transformer without a class token": has_patches and "cls_token" not in state,
        "a vision transformer without learned positions": has_patches and "pos_embed" not in state,
    }
    return next((kind for kind, is_found in kinds.items() if is_found), None)


def layout(
    wrappers: tuple[str, ...], has: tuple[str, ...] = (), lacks: tuple[str, ...] = ()
) -> Callable[[RawCheckpoint], bool]:
    """Make the test for plain ViTs under one of some entries, by how their keys begin."""

    def matches(raw: RawCheckpoint) -> bool:
        wrapper, state, _ = unwrap(raw)
        begins = {part for part in (*has, *lacks) if any(key.startswith(part) for key in state)}
        return wrapper in wrappers and is_plain_vit(state) and begins == set(has)

    return matches


has_mae_layout = layout(SINGLE, lacks=(LAYER_SCALE, *REGISTERS, TEXT_ENCODER, CONTROLLER))
"""Recognise a masked autoencoder, or a bare ViT as after extraction or refinement."""


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Give a plain ViT's own keys, as timm names them.

    DINOv2 stores registers as ``register_tokens`` and a position for CLS alone; timm adds that
    position to the CLS token instead, which is the same function.

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


def build(
    state: State, image_size: int, num_heads: int, *, eps: float = 1e-6, **options: Any
) -> VisionTransformer:
    """Build a plain ViT by a repaired state's shapes, without dropout or stochastic depth.

    ``eps`` is that of its LayerNorms; ``options`` are timm's, for what no shape tells.

    Raises:
        InputError: If the keys are not a plain ViT's, or the shapes do not go together.
    """
    prefix, _ = _positions(state)
    width, in_chans, patch = patch_shape(state)
    check_sizes(width, patch, image_size, num_heads)
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=in_chans,
        num_classes=0,
        global_pool="",
        embed_dim=width,
        depth=count_blocks(state, "blocks."),
        num_heads=num_heads,
        mlp_ratio=mlp_ratio(state["blocks.0.mlp.fc1.weight"].shape[0], width),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        init_values=1e-5 if LAYER_SCALE in state else None,
        class_token=True,
        no_embed_class=prefix == 0,
        reg_tokens=_registers(state),
        norm_layer=partial(nn.LayerNorm, eps=eps),
        weight_init="skip",
        **options,
    )


def resize(state: State, image_size: int) -> dict[str, Tensor]:
    """Interpolate the position embedding (bicubic) to an image size; prefix tokens keep theirs."""
    prefix, present = _positions(state)
    grid = image_size // state["patch_embed.proj.weight"].shape[-1]
    resized = dict(state)
    if grid != present:
        resized["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"], [grid, grid], num_prefix_tokens=prefix
        )
    return resized


def trained_size(state: State) -> int:
    """Give the image size in pixels that the position embedding is for."""
    return _positions(state)[1] * state["patch_embed.proj.weight"].shape[-1]


def usual_heads(state: State, table: Mapping[int, int] = WIDTH_PER_HEAD) -> int | None:
    """Give a family's number of heads for a width, None for a width of no family member."""
    shape = tuple(state["cls_token"].shape) if "cls_token" in state else ()
    return table.get(shape[-1]) if shape else None


def tokens(encoder: nn.Module, images: Tensor) -> ImageTokens:
    """Run a timm ``VisionTransformer`` or ``Eva`` with a class token up to its last block."""
    if not isinstance(encoder, VisionTransformer | Eva):
        raise TypeError(f"expected a timm VisionTransformer or Eva, got {type(encoder).__name__}")
    [(patches, prefix)] = encoder.forward_intermediates(
        images,
        indices=1,
        return_prefix_tokens=True,
        norm=False,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return ImageTokens(prefix, patches)


PLAIN_VIT = Architecture(repair, build, resize, trained_size, usual_heads, tokens)


def require_keys(state: State, needed: tuple[str, ...], owner: str) -> None:
    """Refuse weights without the keys from whose shapes an encoder is built.

    Raises:
        InputError: If one is missing.
    """
    missing = [key for key in needed if key not in state]
    if missing:
        raise InputError(
            f"The weights are not those of {owner}",
            got=shorten(sorted(state)),
            expected=f"also {', '.join(missing)}",
            remedy="name the backbone with --backbone, or give its published checkpoint",
        )


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


def patch_shape(state: State) -> tuple[int, int, int]:
    """Give the width, the channels and the side of square patches.

    Raises:
        InputError: If the weight that says so is of no such convolution.
    """
    shape = tuple(state["patch_embed.proj.weight"].shape)
    if len(shape) != 4 or shape[2] != shape[3] or 0 in shape:
        raise InputError(
            "patch_embed.proj.weight must be a two-dimensional convolution's, of square patches",
            got=shape,
            expected="(D, C, patch, patch)",
        )
    return shape[0], shape[1], shape[2]


def count_blocks(state: State, prefix: str) -> int:
    """Count the blocks whose keys begin with a prefix and their number."""
    numbers = (re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in state)
    return 1 + max(int(number[1]) for number in numbers if number)


def mlp_ratio(hidden: int, width: int) -> float:
    """Give the ratio from which timm, which truncates, makes exactly this hidden width."""
    return (hidden + 0.5) / width


def _registers(state: State) -> int:
    return state["reg_token"].numel() // patch_shape(state)[0] if "reg_token" in state else 0


def _positions(state: State) -> tuple[int, int]:
    """Split a position embedding's length into prefix tokens and the side of a square grid."""
    require_keys(state, (*ESSENTIAL, "blocks.0.mlp.fc1.weight"), "a plain vision transformer")
    patch_shape(state)
    shape = tuple(state["pos_embed"].shape)
    length = shape[1] if len(shape) == 3 and shape[0] == 1 else 0
    for prefix in (1, 0, 1 + _registers(state)):
        grid = math.isqrt(max(length - prefix, 0))
        if grid and grid * grid == length - prefix:
            return prefix, grid
    raise InputError(
        "The position embedding belongs to no square grid of patches",
        got=shape,
        expected="(1, N, D), N a square number, plus one for CLS or one for each prefix token",
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
