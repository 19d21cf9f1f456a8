"""What makes a step cheap, or may do so: taken away or put in place, to see what it is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner import model as retfiner_model
from retfiner.losses import masked
from retfiner.losses.loss import Plan
from retfiner.model import Batch, Encoded, RetFiner
from retfiner.text import layer as text_layer
from retfiner.text import reading as text_reading
from retfiner.text.layer import KeysValues
from retfiner.text.masking import MaskedTokens
from retfiner.text.reading import Reading

Lever = Literal[
    "one_pass", "packing", "fused_attention", "shared_keys", "hidden_only", "fused_adamw",
    "weight_cache", "recompute",
]  # fmt: skip


@contextlib.contextmanager
def without(lever: Lever | None, model: RetFiner) -> Iterator[None]:
    """Take a lever away from the model for the length of a step."""
    with contextlib.ExitStack() as stack:
        if lever == "packing":
            for module in (retfiner_model, text_reading):
                stack.enter_context(patch.object(module, "packing_of", lambda *_: None))
        elif lever == "fused_attention":
            for module in model.vision_encoder.modules():
                if hasattr(module, "fused_attn"):
                    stack.enter_context(patch.object(module, "fused_attn", False))
            stack.enter_context(patch.object(text_layer, "_attention", plain_attention))
        elif lever in ("shared_keys", "one_pass"):
            together = model.fuse

            def one_by_one(batch: Batch, encoded: Encoded, readings: list[Reading]) -> list[Tensor]:
                if lever == "shared_keys":  # each reading, in a pass of its own, projects its own
                    encoded = encoded._replace(image=None)
                return [together(batch, encoded, [reading])[0] for reading in readings]

            stack.enter_context(patch.object(model, "fuse", one_by_one))
        elif lever == "hidden_only":
            stack.enter_context(patch.object(masked, "masked_prediction", full_prediction))
        with model.recompute.off() if lever == "recompute" else contextlib.nullcontext():
            yield


Changes = list[tuple[object, str, object]]
"""Objects, attributes and the values they get."""


def changes_of(apply: Callable[[], None], model: RetFiner) -> Changes:
    """Find what a call changes in a model's modules, and take it back.

    Args:
        apply: A call such as ``checkpoint_activations(model)`` without arguments.
        model: The model.
    """
    before = {module: dict(vars(module)) for module in model.modules()}
    apply()
    changed: Changes = []
    for module, old in before.items():
        for name, value in list(vars(module).items()):
            if name in old and old[name] is value:
                continue
            changed.append((module, name, value))
            if name in old:
                setattr(module, name, old[name])
            else:
                delattr(module, name)
    return changed


@contextlib.contextmanager
def having(changes: Changes) -> Iterator[None]:
    """Put changes in place for the length of a step."""
    with contextlib.ExitStack() as stack:
        for target, name, value in changes:
            stack.enter_context(patch.object(target, name, value))
        yield


def plain_attention(
    query: Tensor, seen: KeysValues, mask: Tensor | None, dropout: float, _: bool
) -> Tensor:
    scores = query @ seen.keys.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.dropout(scores.softmax(-1), dropout) @ seen.values


def full_prediction(model: RetFiner, batch: Batch, masked: MaskedTokens, causal: bool) -> Plan:
    """Score the vocabulary at every position."""
    reading = Reading(masked.input_ids, batch.attention_mask, batch.lengths, causal)

    def answer(states: list[Tensor]) -> Tensor:
        labels = torch.full_like(batch.input_ids, -100).flatten()
        labels[masked.positions] = masked.labels
        logits = model.multimodal_encoder.predict_tokens(states[0]).flatten(0, 1)
        return F.cross_entropy(logits, labels, ignore_index=-100)

    return Plan([reading], answer)
