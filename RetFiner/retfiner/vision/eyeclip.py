"""EyeCLIP: CLIP trained on ophthalmic images of eleven modalities and their texts (Shi, 2025).

The keys are OpenAI's, ``visual.transformer.resblocks.0.ln_1.weight``; timm computes the same by
its plain ViT with a norm before the blocks, LayerNorms of 1e-5 and QuickGELU. Only the published
file's decoder, of masked autoencoding, tells it from other CLIPs, whose GELU may be another.
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
_AFTER = ("proj", "decoder.")
"""Beginnings of keys after the encoder."""


def matches(raw: RawCheckpoint) -> bool:
    """Recognise the ViT of a CLIP with a decoder of masked autoencoding."""
    return {"class_embedding", "conv1.weight", "decoder.mask_token"} <= unwrap(raw).state.keys()


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Give timm's keys; those that are timm's already stay."""
    state = {k: widened(v) for k, v in unwrap(raw).state.items() if not k.startswith(_AFTER)}
    for key, axes in (("class_embedding", (None, None)), ("positional_embedding", (None,))):
        if key in state:
            state[key] = state[key][axes]
    return {renamed(key, _NAMES): value for key, value in state.items()}


def wrap(state: State) -> dict[str, dict[str, Tensor]]:
    """Lay keys out as the published file does."""
    names = {ours: theirs for theirs, ours in _NAMES.items()}
    laid = {f"visual.{renamed(key, names)}": value for key, value in state.items()}
    laid["visual.class_embedding"] = state["cls_token"][0, 0]
    laid["visual.positional_embedding"] = state["pos_embed"][0]
    return {"model_state_dict": laid}


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
    architecture=replace(
        plain_vit.PLAIN_VIT,
        repair=repair,
        build=partial(plain_vit.build, pre_norm=True, eps=1e-5, act_layer="quick_gelu"),
    ),
    matches=matches,
    wrap=wrap,
    sizes=("ViT-B/32",),
    representation="concat_postnorm",  # its contrast read CLS after the final norm
    filename_hints=("eyeclip",),
)
