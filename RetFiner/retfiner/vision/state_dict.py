"""State dicts: take the training run's wrapping off, keep the encoder's keys.

The order fits every published layout: unwrap, strip prefixes, drop what only training needed.
What then is left over is the loader's business, never silently ignored.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from retfiner.common.errors import InputError, shorten
from retfiner.vision.checkpoint_file import OWN_KEY, RawCheckpoint

WRAPPERS = ("model", "teacher", "student", "state_dict", "model_state_dict")
"""Where training code puts the weights; the first one found wins, hence teacher over student."""

PREFIXES = ("module.", "backbone.", "model.vision_encoder.", "model.")
"""What parallel training, self-distillation and Lightning put before a key."""

TRAINING_ONLY = ("decoder", "mask_token", "masked_embed", "bert_", "dino_head.", "ibot_head.")
"""Beginnings of keys that served pretraining alone."""

HEADS = ("head.", "head_dist.", "proj.")
"""Beginnings of keys after the encoder: classifiers, and the projection to the text width."""


class Unwrapped(NamedTuple):
    """Tensors by key, and the top-level entry they were found under ("" for a flat file)."""

    wrapper: str
    state: dict[str, Tensor]


def unwrap(raw: RawCheckpoint) -> Unwrapped:
    """Take the weights out of a checkpoint and strip prefixes from their keys.

    Raises:
        InputError: If there are no weights, if two keys become one, or if it is a refinement run's
            training checkpoint, which holds more than a backbone.
    """
    content = raw.content
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            break
    else:
        wrapper, inner = "", content
    tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if "pytorch-lightning_version" in content or any("multimodal_encoder." in k for k in tensors):
        raise InputError(
            "This is a training checkpoint of a refinement run, not a backbone",
            got=shorten(sorted(str(key) for key in content)),
            expected="a vision backbone",
            remedy="extract it first: python get_vision_backbone_for_linprobing.py",
        )
    if not tensors:
        raise InputError(
            "The checkpoint holds no weights",
            got=shorten(sorted(str(key) for key in content)) or "an empty dictionary",
            expected=f"tensors at the top level or under one of {', '.join(WRAPPERS)}",
        )
    return Unwrapped(wrapper, _stripped(tensors))


def encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what only training needed, and widen half precision to float32.

    A ``fc_norm`` beside a ``norm`` belongs to a classifier and is dropped with it. Without a
    ``norm``, it is the final norm of a classifier fine-tuned on pooled patches, moved behind the
    pooling: no norm of the encoder's tokens, so the file is refused.

    Raises:
        InputError: If the final norm was replaced by a fine-tuned ``fc_norm``.
    """
    if "fc_norm.weight" in state and "norm.weight" not in state:
        raise InputError(
            "This is a classifier fine-tuned on pooled patches: its encoder has no final norm",
            got="fc_norm.weight, no norm.weight",
            expected="pretrained weights",
            remedy="give the pretrained checkpoint the classifier was fine-tuned from",
        )
    dropped = (*TRAINING_ONLY, *HEADS, "fc_norm.")
    return {k: widened(v) for k, v in state.items() if not k.startswith(dropped)}


def text_projection(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Find the projection to the text width that published refined checkpoints carry.

    Returns:
        ``weight`` (text width, D) and ``bias`` (text width), or an empty dictionary.
    """
    state = unwrap(raw).state
    names = ("weight", "bias")
    return {name: widened(state[f"proj.{name}"]) for name in names if f"proj.{name}" in state}


def widened(tensor: Tensor) -> Tensor:
    """Give a tensor of half precision as float32, any other one as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _stripped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        short = key
        while prefix := next((p for p in PREFIXES if short.startswith(p)), ""):
            short = short[len(prefix) :]
        if short in state:
            raise InputError(
                f"Two weights of the checkpoint are both called {short!r}",
                got=shorten([k for k in tensors if k.endswith(short)]),
                expected=f"one encoder, its keys prefixed alike by any of {', '.join(PREFIXES)}",
                remedy=f"save the encoder alone, without an entry {OWN_KEY!r}",
            )
        state[short] = tensor
    return state
