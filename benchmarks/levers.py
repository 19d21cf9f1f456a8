"""What makes a step cheap, or may do so: taken away or put in place, to see what it is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner import model as retfiner_model
from retfiner.losses import masked
from retfiner.model import Batch, Encoded, RetFiner
from retfiner.text import layer as text_layer
from retfiner.text.masking import MaskedTokens

Lever = Literal[
    "packing", "fused_attention", "shared_keys", "hidden_only", "fused_adamw", "weight_cache"
]


@contextlib.contextmanager
def without(lever: Lever | None, model: RetFiner) -> Iterator[None]:
    """Take a lever away from the model for the length of a forward pass."""
    with contextlib.ExitStack() as stack:
        if lever == "packing":
            stack.enter_context(patch.object(retfiner_model, "packing_of", lambda *_: None))
        elif lever == "fused_attention":
            for module in model.vision_encoder.modules():
                if hasattr(module, "fused_attn"):
                    stack.enter_context(patch.object(module, "fused_attn", False))
            stack.enter_context(patch.object(text_layer, "_attention", plain_attention))
        elif lever == "shared_keys":
            shared = model.fuse

            def fuse(ids: Tensor, mask: Tensor, encoded: Encoded, *rest: Any, **named: Any) -> Any:
                image = model.multimodal_encoder.project_image(encoded.image_tokens)
                return shared(ids, mask, encoded._replace(image=image), *rest, **named)

            stack.enter_context(patch.object(model, "fuse", fuse))
        elif lever == "hidden_only":
            stack.enter_context(patch.object(masked, "masked_prediction", full_prediction))
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
    """Put changes in place for the length of a forward pass."""
    with contextlib.ExitStack() as stack:
        for target, name, value in changes:
            stack.enter_context(patch.object(target, name, value))
        yield


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.dropout(scores.softmax(-1), dropout) @ value


def full_prediction(
    model: RetFiner, batch: Batch, encoded: Encoded, masked: MaskedTokens, causal: bool
) -> Tensor:
    """Score the vocabulary at every position."""
    states = model.fuse(
        masked.input_ids, batch.attention_mask, encoded, causal=causal, packing=encoded.packing
    )
    labels = torch.full_like(batch.input_ids, -100).flatten()
    labels[masked.positions] = masked.labels
    logits = model.multimodal_encoder.predict_tokens(states).flatten(0, 1)
    return F.cross_entropy(logits, labels, ignore_index=-100)
