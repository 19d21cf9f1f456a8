"""MLM and GM against loops written from their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retfiner.losses.gm import GenerativeModelling
from retfiner.losses.masked import masked_prediction
from retfiner.losses.mlm import MaskedLanguageModelling
from retfiner.text.masking import mask_tokens
from retfiner.text.reading import Reading
from tests.helpers.small import random_batch, small_model


def naive(model, batch, masked, causal):
    """Each report alone, without padding, through transformers' own forward pass."""
    hidden = masked.positions.tolist()
    labels = dict(zip(hidden, masked.labels.tolist(), strict=True))
    width = batch.input_ids.shape[1]
    losses = []
    for row, n in enumerate(batch.lengths):
        attend = torch.ones(n, n, dtype=torch.bool)
        logits = model.multimodal_encoder(
            input_ids=masked.input_ids[row : row + 1, :n],
            attention_mask=(attend.tril() if causal else attend)[None, None],
            encoder_hidden_states=model.encode_images(batch.images[row : row + 1]),
        ).logits[0]
        losses += [
            -F.log_softmax(logits[p - row * width], -1)[label]
            for p, label in labels.items()
            if row * width <= p < row * width + n
        ]
    assert len(losses) == len(hidden)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_definition(causal):
    model, batch = small_model(), random_batch()
    masked = mask_tokens(
        batch.input_ids, batch.lengths, 0.5, 4, 120, torch.Generator().manual_seed(0)
    )
    plan = masked_prediction(model, batch, masked, causal)
    ours = plan.carry_out(model, batch, model.encode(batch))
    assert ours.item() == pytest.approx(naive(model, batch, masked, causal).item(), abs=1e-10)


@pytest.mark.parametrize(
    ("loss", "probability", "causal"),
    [(MaskedLanguageModelling(), 0.15, False), (GenerativeModelling(), 0.6, True)],
)
def test_each_loss_hides_its_share_and_looks_its_way(loss, probability, causal):
    model, batch = small_model(), random_batch()
    ours = loss(model, batch, model.encode(batch), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    masked = mask_tokens(batch.input_ids, batch.lengths, probability, 4, 120, generator)
    assert ours.item() == pytest.approx(naive(model, batch, masked, causal).item(), abs=1e-10)


def test_how_words_are_hidden_is_the_models_setting():
    rules = {"random_token_from": 100, "redraw_masks": True}
    model, batch, loss = small_model(**rules), random_batch(), MaskedLanguageModelling()
    ours = loss(model, batch, model.encode(batch), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    masked = mask_tokens(
        batch.input_ids, batch.lengths, 0.15, 4, 120, generator, random_from=100, redraw=True
    )
    assert ours.item() == pytest.approx(naive(model, batch, masked, False).item(), abs=1e-10)
    counts = loss.guesses(model, batch, torch.Generator().manual_seed(3))
    assert torch.equal(counts, torch.bincount(masked.labels, minlength=120).float())


def test_gm_does_not_look_ahead():
    """Changing what follows a hidden token changes what MLM makes of it, not what GM does."""
    model, batch = small_model(), random_batch()
    encoded = model.encode(batch)
    changed = batch.input_ids.clone()
    changed[0, 8] = 77 if changed[0, 8] != 77 else 78
    for causal in (False, True):
        states = [
            model.fuse(batch, encoded, [Reading(ids, batch.attention_mask, None, causal)])[0][0, 5]
            for ids in (batch.input_ids, changed)
        ]
        assert torch.equal(*states) == causal


def test_rates_are_the_published_ones():
    assert MaskedLanguageModelling().probability == 0.15
    assert GenerativeModelling().probability == 0.6


def test_both_losses_look_at_the_image():
    model, batch = small_model(), random_batch()
    other = batch._replace(images=batch.images.flip(0))
    for loss in (MaskedLanguageModelling(), GenerativeModelling()):
        values = [
            loss(model, b, model.encode(b), torch.Generator().manual_seed(0))
            for b in (batch, other)
        ]
        assert not torch.allclose(*values)
