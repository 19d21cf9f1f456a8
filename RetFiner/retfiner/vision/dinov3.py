"""DINOv3: rotary positions, registers and LayerScale (Siméoni et al., 2025).

Built by timm, whose ``Eva`` computes it; read in Meta's own layout, in timm's and in transformers',
which ``transformers_vit.py`` turns into Meta's. All hold the same weights under other names, but
for a bias of the keys, which Meta's code masks to zero and the others have none of. Angles come
from a formula, in float32 as timm computes them, and fit any grid.
"""

from functools import partial

import timm
import torch
from timm.models.eva import Eva
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.plain_vit import DISTILLED, SINGLE, check_sizes, require_keys
from retfiner.vision.spec import Architecture, BackboneSpec, State
from retfiner.vision.state_dict import encoder_part, renamed, unwrap

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 20, 4096: 32}
"""Heads by width, of Meta's ``dinov3/hub/backbones.py``: 64 channels each, 128 in ViT-7B."""

_NAMES = {
    "storage_tokens": "reg_token",
    "ls1.gamma": "gamma_1",
    "ls2.gamma": "gamma_2",
    "mlp.w1.": "mlp.fc1_g.",
    "mlp.w2.": "mlp.fc1_x.",
    "mlp.w3.": "mlp.fc2.",
}
"""Parts of Meta's keys, and timm's for them; the last is of gated MLPs alone."""
_GATED = "blocks.0.mlp.fc1_g.weight"
_ESSENTIAL = ("cls_token", "reg_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
_UNUSED = ("rope_embed.", "local_cls_norm.")
"""Beginnings of keys that the formula makes needless, or that served pretraining alone."""


def is_dinov3(state: State) -> bool:
    """Say whether keys (without prefixes) are those of a DINOv3 ViT, in Meta's layout or timm's."""
    registers = {"storage_tokens", "reg_token"} & state.keys()
    scale = {"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & state.keys()
    absent = {"pos_embed", "rope.freqs"} & state.keys()  # EVA-02 and its kin
    others = set(_ESSENTIAL) - {"reg_token"}
    return bool(registers and scale and not absent and others <= state.keys())


def matches(raw: RawCheckpoint) -> bool:
    """Recognise an encoder alone, or in a checkpoint of self-distillation."""
    wrapper, state, _ = unwrap(raw)
    return wrapper in (*DISTILLED, *SINGLE) and is_dinov3(state)


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Give timm's keys. The bias of keys is dropped: Meta's ``bias_mask`` makes it zero.

    Raises:
        InputError: If there is such a bias and no mask.
    """
    repaired: dict[str, Tensor] = {}
    state = encoder_part(unwrap(raw).state)
    for key, value in state.items():
        if key.startswith(_UNUSED) or key.endswith(".bias_mask"):
            continue
        if key.endswith(".attn.qkv.bias"):
            block = key.removesuffix("qkv.bias")
            repaired[f"{block}q_bias"], of_keys, repaired[f"{block}v_bias"] = (
                value.flatten().tensor_split(3)
            )
            if f"{key}_mask" not in state and of_keys.any():
                raise InputError(
                    "This DINOv3 was trained with a bias of its attention's keys",
                    got=f"{key} without a bias_mask",
                    expected="as published, mask_k_bias: true",
                )
            continue
        repaired[renamed(key, _NAMES)] = value
    return repaired


def build(state: State, image_size: int, num_heads: int) -> Eva:
    """Build a DINOv3 ViT by a repaired state's shapes, without stochastic depth.

    Raises:
        InputError: If the keys are not DINOv3's, or the shapes do not go together.
    """
    hidden = _GATED if _GATED in state else "blocks.0.mlp.fc1.weight"
    require_keys(state, (*_ESSENTIAL, hidden), "DINOv3")
    width, in_chans, patch = plain_vit.patch_shape(state)
    check_sizes(width, patch, image_size, num_heads)
    encoder = timm.create_model(  # which knows all that DINOv3's sizes have in common
        f"vit_small{'_plus' if hidden == _GATED else ''}_patch16_dinov3_qkvb",
        num_classes=0,
        global_pool="",
        img_size=image_size,
        dynamic_img_size=False,
        patch_size=patch,
        in_chans=in_chans,
        embed_dim=width,
        depth=plain_vit.count_blocks(state, "blocks."),
        num_heads=num_heads,
        num_reg_tokens=state["reg_token"].numel() // width,
        qkv_bias="blocks.0.attn.q_bias" in state,
        mlp_ratio=plain_vit.mlp_ratio(state[hidden].shape[0], width),
        **({"swiglu_align_to": 1} if hidden == _GATED else {}),
    )
    return with_separate_bias(encoder)


def with_separate_bias(encoder: Eva) -> Eva:
    """Let attention call its layer ``qkv``: else it reads the weight alone, past LoRA's updates."""
    for block in encoder.blocks:
        block.attn.qkv_bias_separate = True
    return encoder


def meta_layout(state: State) -> dict[str, Tensor]:
    """Lay keys out as Meta's code loads them strictly, with what it computes or never uses."""
    laid: dict[str, Tensor] = {}
    names = {ours: theirs for theirs, ours in _NAMES.items()}
    if _GATED not in state:
        del names["mlp.fc2."]
    for key, value in state.items():
        if key.endswith(".attn.q_bias"):
            block, zeros, ones = key.removesuffix("q_bias"), value * 0, torch.ones_like(value)
            laid[f"{block}qkv.bias"] = torch.cat([value, zeros, state[f"{block}v_bias"]])
            laid[f"{block}qkv.bias_mask"] = torch.cat([ones, zeros, ones])
        elif not key.endswith(".attn.v_bias"):
            laid[renamed(key, names)] = value
    width = state["cls_token"].shape[-1]
    size = width // HEADS.get(width, 1)
    steps = torch.arange(size // 4, dtype=torch.float32) / (size // 2)
    unused = {"mask_token": torch.zeros(1, width), "rope_embed.periods": 100.0 ** (2 * steps)}
    return laid | unused


DINOV3_VIT = Architecture(
    repair,
    build,
    resize=lambda state, image_size: dict(state),
    trained_size=lambda state: None,
    heads=partial(plain_vit.usual_heads, table=HEADS),
    tokens=plain_vit.tokens,
)

DINOV3 = BackboneSpec(
    name="DINOv3",
    title="DINOv3, ViT-S/16 to ViT-7B/16",
    licence="DINOv3 License",
    source="https://github.com/facebookresearch/dinov3",
    citation="Siméoni et al., DINOv3, arXiv:2508.10104, 2025",
    architecture=DINOV3_VIT,
    matches=matches,
    wrap=meta_layout,
    sizes=("ViT-S/16", "ViT-B/16", "ViT-L/16"),
    representation="concat_postnorm",  # as DINOv3's own linear evaluation, see retfound.py
    generic=True,
    filename_hints=("dinov3",),
)
