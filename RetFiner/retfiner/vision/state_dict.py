"""State dicts: take the training run's wrapping off, keep the encoder's keys.

The order fits every published layout: unwrap, strip prefixes, drop what only training needed.
What then is left over is the loader's business, never silently ignored.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retfiner.common.errors import InputError, shorten
from retfiner.vision import transformers_vit
from retfiner.vision.checkpoint_file import OWN_KEY, RawCheckpoint

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Where training code puts averaged weights; beside raw ones they are taken, as timm takes them."""

_AVERAGED_NAME = re.compile(r"(?<![a-z])(?:ema|teacher)(?![a-z])")
"""In the name that an owner gave an encoder: it averages another one."""

WRAPPERS = ("model", "teacher", "student", "state_dict", "model_state_dict")
"""Where training code puts the weights; the first one found wins, hence teacher over student."""

PREFIXES = ("module.", "backbone.", "model.vision_encoder.", "model.")
"""What parallel training, self-distillation and Lightning put before a key."""

INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, split weights and recomputed activations put anywhere into a key."""

ENCODER_KEYS = (
    "patch_embed.proj.weight",
    "input_adapters.bscan.proj.weight",
    "ln_pre.weight",
    transformers_vit.KEY,
    transformers_vit.DINOV3_KEY,
)
"""Keys that every encoder has one of; what stands before it is the name its owner gave it."""

TRAINING_ONLY = (
    "decoder",
    "mask_token",
    "masked_embed",
    "bert_",
    "dino_head.",
    "ibot_head.",
    "controller.",
    "mlp.",
    "n_averaged",
)
"""Beginnings of keys that served pretraining alone."""

HEADS = ("head.", "heads.", "head_dist.", "proj.", "classifier.", "fc.", "mlp_head.")
"""Beginnings of keys after the encoder: classifiers, and the projection to the text width."""


class Unwrapped(NamedTuple):
    """Tensors by key, and the top-level entry they were found under ("" for a flat file).

    Attributes:
        wrapper: The entry; ``teacher`` or ``student`` also where these are parts of one entry, and
            "" where it is of one's own and says nothing of where the weights come from.
        state: The tensors, their keys without prefixes.
        notes: Which of several networks was taken, if there was a choice.
    """

    wrapper: str
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def unwrap(raw: RawCheckpoint) -> Unwrapped:
    """Take the weights out of a checkpoint and strip prefixes from their keys.

    Raises:
        InputError: If there are no weights, if two keys become one, if there are several encoders,
            or if it is a refinement run's training checkpoint, which holds more than a backbone.
    """
    wrapper, inner, notes = _entry(raw.content)
    tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if "settings" in raw.metadata or any("multimodal_encoder." in key for key in tensors):
        raise InputError(
            "This is a training checkpoint of a refinement run, not a backbone",
            got=shorten(sorted(str(key) for key in raw.content)),
            expected="a vision backbone",
            remedy="extract it first: python get_vision_backbone_for_linprobing.py",
        )
    if not tensors:
        raise InputError(
            "The checkpoint holds no weights",
            got=shorten(sorted(str(key) for key in raw.content)) or "an empty dictionary",
            expected=f"tensors at the top level or under one of {', '.join(WRAPPERS)}",
        )
    part, state, chosen = _one_encoder(_stripped(tensors))
    if transformers_vit.KEY in state or transformers_vit.DINOV3_KEY in state:
        state = transformers_vit.converted(state)
    return Unwrapped(part or wrapper, state, (*notes, *chosen))


def _entry(content: Mapping[str, Any], levels: int = 2) -> tuple[str, Mapping[str, Any], list[str]]:
    """Find the entry with the weights, and say so where averaged ones lie beside.

    An entry may hold another one, as a Lightning module's ``state_dict`` that of its ``model``.
    """
    found = [name for name in (*AVERAGED, *WRAPPERS) if _holds_tensors(content.get(name))]
    if not found and not _holds_tensors(content):
        held = ((str(name), inner) for name, inner in content.items() if _holds_tensors(inner))
        found = [name for name, inner in held if any(str(k).endswith(ENCODER_KEYS) for k in inner)]
    inner = [value for value in content.values() if isinstance(value, Mapping) and levels]
    if not found and not _holds_tensors(content):
        deeper = [entry for value in inner if (entry := _entry(value, levels - 1))[1] is not value]
        return deeper[0] if len(deeper) == 1 else ("", content, [])
    if not found:
        return "", content, []
    taken, others = found[0], found[1:]
    notes = []
    if taken in AVERAGED and others:
        notes = [
            f"the averaged weights {taken!r} are taken, not {others[0]!r}, which lie beside them; "
            "to use those, save them alone"
        ]
    return taken if taken in WRAPPERS else "", content[taken], notes


def _holds_tensors(inner: Any) -> bool:
    return isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values())


def _one_encoder(state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
    """Take the encoder out of a module of one's own, by what stands before its keys.

    Returns:
        ``teacher`` or ``student`` where that is what was taken, the state, and a note where there
        was a choice.
    """
    ends = [(key, end) for key in state for end in ENCODER_KEYS if f".{key}".endswith(f".{end}")]
    names = sorted({key.removesuffix(end) for key, end in ends})
    if names in ([], [""]):
        return "", state, []
    if len(names) > 1:
        teachers = [name for name in names if _AVERAGED_NAME.search(name)]
        if len(teachers) != 1:
            raise InputError(
                "The checkpoint holds several encoders",
                got=", ".join(f"{name or '(no name) '}*" for name in names),
                expected="one encoder, or one of a teacher",
                remedy="save the one to be used alone: torch.save(encoder.state_dict(), ...)",
            )
        others = ", ".join(f"{name or '(no name) '}*" for name in names if name != teachers[0])
        notes = [f"of several encoders the weights of {teachers[0]}* are taken, not {others}"]
    else:
        teachers, notes = names, []
    [name] = teachers
    part = next((word for word in ("teacher", "student") if word in name.split(".")), "")
    return part, {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}, notes


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


def renamed(key: str, names: Mapping[str, str]) -> str:
    """Replace parts of a key, each from a dot or the key's beginning on."""
    key = f".{key}"
    for old, new in names.items():
        key = key.replace(f".{old}", f".{new}")
    return key[1:]


def widened(tensor: Tensor) -> Tensor:
    """Give a tensor of half precision as float32, any other one as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _stripped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        short = key
        for inserted in INSERTED:
            short = short.replace(inserted, "")
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
