"""EyeCLIP (Shi et al., 2025), and CLIP's ViT as OpenAI publishes it (Radford et al., 2021).

The keys are OpenAI's, ``visual.transformer.resblocks.0.ln_1.weight``; timm computes the same by
its plain ViT with a norm before the blocks, LayerNorms of 1e-5 and QuickGELU. Text encoders,
EyeCLIP's decoder and the projection to the joint space are left out.
"""

from dataclasses import replace
from functools import partial

from torch import Tensor

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec, State
from retfiner.vision.state_dict import renamed, unwrap, widened

_NAMES = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1.": "patch_embed.proj.",
    "ln_pre.": "norm_pre.",
    "ln_post.": "norm.",
    "transformer.resblocks.": "blocks.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
"""Parts of OpenAI's keys, and timm's for them."""
_AFTER = ("proj", "head.", "decoder.")
"""Beginnings of keys after the encoder, EyeCLIP's masked autoencoding included."""


def is_clip(raw: RawCheckpoint) -> bool:
    """Recognise the ViT of a CLIP, with or without its text encoder."""
    needed = {"class_embedding", "conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"}
    return needed <= unwrap(raw).state.keys()


def _has_decoder(raw: RawCheckpoint) -> bool:
    return any(key.startswith("decoder.") for key in unwrap(raw).state)


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Give timm's keys; those that are timm's already stay."""
    state = {k: widened(v) for k, v in unwrap(raw).state.items() if not k.startswith(_AFTER)}
    repaired = {renamed(key, _NAMES): value for key, value in state.items()}
    for key in ("cls_token", "pos_embed"):
        if key in repaired:
            repaired[key] = repaired[key].reshape(1, -1, repaired[key].shape[-1])
    return repaired


def under_visual(state: State) -> dict[str, Tensor]:
    """Lay keys out as OpenAI's code has them."""
    names = {ours: theirs for theirs, ours in _NAMES.items()}
    laid = {f"visual.{renamed(key, names)}": value for key, value in state.items()}
    laid["visual.class_embedding"] = state["cls_token"][0, 0]
    laid["visual.positional_embedding"] = state["pos_embed"][0]
    return laid


CLIP_VIT = replace(
    plain_vit.PLAIN_VIT,
    repair=repair,
    build=partial(plain_vit.build, pre_norm=True, eps=1e-5, act_layer="quick_gelu"),
)

EYECLIP = BackboneSpec(
    name="EyeCLIP",
    title="EyeCLIP, ViT-B/32",
    licence="none stated",
    source="https://github.com/Michi-3000/EyeCLIP",
    citation=(
        "Shi et al., A multimodal visual-language foundation model for computational "
        "ophthalmology, npj Digital Medicine 8, 2025"
    ),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    architecture=CLIP_VIT,
    matches=is_clip,
    wrap=lambda state: {"model_state_dict": under_visual(state)},
    sizes=("ViT-B/32",),
    representation="concat_postnorm",  # its contrast read CLS after the final norm
    filename_hints=("eyeclip",),
)

CLIP = replace(
    EYECLIP,
    name="CLIP",
    title="CLIP by OpenAI, ViT-B/32 to ViT-L/14",
    licence="MIT",
    source="https://github.com/openai/CLIP",
    citation=(
        "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, "
        "ICML 2021"
    ),
    # Nothing tells it from open_clip's, whose GELU is another, but its user.
    matches=lambda raw: is_clip(raw) and not _has_decoder(raw),
    wrap=under_visual,
    sizes=("ViT-B/32", "ViT-B/16", "ViT-L/14"),
    generic=True,
    filename_hints=("openai",),
)
