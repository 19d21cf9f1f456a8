"""Losses computed in one pass of the text encoder are those computed one by one."""

from __future__ import annotations

import pytest
import torch

from retfiner.losses import build_losses, losses_together
from retfiner.text.reading import Reading
from tests.helpers.small import random_batch, small_model

NAMES = ["itc", "itm", "mlm", "gm"]


def draws():
    return {name: torch.Generator().manual_seed(number) for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("chunk_size", [None, 2, 4])
def test_losses_and_gradients_are_those_of_separate_passes(chunk_size):
    batch, losses = random_batch(), build_losses(NAMES)
    found = []
    for together in (True, False):
        model = small_model(chunk_size=chunk_size)
        encoded = model.encode(batch)
        values = (
            losses_together(losses, model, batch, encoded, draws())
            if together
            else {name: loss(model, batch, encoded, draws()[name]) for name, loss in losses.items()}
        )
        torch.stack(list(values.values())).sum().backward()
        found.append((values, {n: p.grad for n, p in model.named_parameters()}))
    for name in NAMES:
        torch.testing.assert_close(found[0][0][name], found[1][0][name], rtol=0, atol=1e-12)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=0, atol=1e-11, msg=name)


def test_readings_come_back_in_their_order_and_width():
    """Texts over their own image and over a drawn one, causal or not, of two widths, mixed."""
    model, batch = small_model(), random_batch()
    index, shorter = torch.tensor([3, 0, 3, 1, 5, 2]), batch.input_ids[:, :7]
    short_mask = torch.ones_like(shorter)
    readings = [
        Reading(batch.input_ids, batch.attention_mask, batch.lengths, image_index=index),
        Reading(shorter, short_mask, None, causal=True),
        Reading(batch.input_ids, batch.attention_mask, batch.lengths),
        Reading(shorter, short_mask, [7] * 6, causal=True, image_index=index.flip(0)),
    ]
    encoded = model.encode(batch)
    together = model.fuse(batch, encoded, readings)
    for states, reading in zip(together, readings, strict=True):
        alone = model.multimodal_encoder.fuse(
            reading.input_ids, reading.attention_mask, encoded.image, reading.image_index,
            reading.causal,
        )  # fmt: skip
        words = reading.attention_mask.bool()
        assert states.shape == alone.shape
        torch.testing.assert_close(states[words], alone[words], rtol=0, atol=1e-12)
