"""How alike reports are, against sets in plain Python."""

from __future__ import annotations

import numpy as np
import torch

from retfiner.text.overlap import shared_words
from tests.helpers.small import random_batch


def naive(batch):
    sets = [
        set(ids[1 : n - 1].tolist()) for ids, n in zip(batch.input_ids, batch.lengths, strict=True)
    ]
    return np.array([[len(a & b) / (len(a) * len(b)) ** 0.5 for b in sets] for a in sets])


def test_equals_the_definition():
    batch = random_batch(size=12, length=20, vocab_size=30)
    found = shared_words(batch.input_ids, batch.attention_mask, 30)
    expected = naive(batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    off_diagonal = expected[~np.eye(12, dtype=bool)]
    assert off_diagonal.min() < 0.3 < 0.6 < off_diagonal.max(), "a test of all kinds of pairs"


def test_special_tokens_and_padding_are_no_words():
    ids = torch.tensor([[2, 7, 3, 0], [2, 8, 9, 3], [2, 3, 0, 0]])
    found = shared_words(ids, (ids > 0).long(), 10)
    assert torch.equal(found, torch.diag(torch.tensor([1.0, 1.0, 0.0])))


def test_mixed_precision_does_not_round_counts():
    """bfloat16 would make 257 common words 256."""
    ids = torch.arange(1, 260)[None].repeat(2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = shared_words(ids, torch.ones_like(ids), 300)
    assert torch.equal(found, torch.ones(2, 2))
