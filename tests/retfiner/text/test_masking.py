"""Masking: the rates, what is never hidden, and that a seed decides it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare

from retfiner.text.masking import mask_tokens

MASK, VOCABULARY = 4, 1000


def many(probability, rows=4000, width=20, length=20, seed=0):
    ids = torch.randint(5, VOCABULARY, (rows, width), generator=torch.Generator().manual_seed(9))
    masked = mask_tokens(
        ids, [length] * rows, probability, MASK, VOCABULARY, torch.Generator().manual_seed(seed)
    )
    return ids, masked


@pytest.mark.parametrize("probability", [0.15, 0.6])
def test_share_of_hidden_tokens(probability):
    _, masked = many(probability)
    eligible = 4000 * 19
    # "at least one a report" adds the reports in which chance hides none
    expected = probability + (1 - probability) ** 19 / 19
    error = 4 * (expected * (1 - expected) / eligible) ** 0.5
    assert len(masked.positions) / eligible == pytest.approx(expected, abs=error)


def test_fate_of_hidden_tokens():
    ids, masked = many(0.6)
    shown = masked.input_ids.flatten()[masked.positions]
    became_mask = (shown == MASK).float().mean().item()
    kept = (shown == masked.labels).float().mean().item()
    assert became_mask == pytest.approx(0.8 + 0.1 / VOCABULARY, abs=0.008)
    assert kept == pytest.approx(0.1 + 0.1 / VOCABULARY, abs=0.006)
    assert torch.equal(ids.flatten()[masked.positions], masked.labels)


def test_everything_else_is_untouched():
    ids, masked = many(0.15)
    changed = (ids != masked.input_ids).flatten().nonzero().squeeze(1)
    assert torch.isin(changed, masked.positions).all()


@pytest.mark.parametrize("redraw", [False, True])
def test_first_token_and_padding_are_never_hidden_and_every_report_has_one(redraw):
    lengths = [2, 3, 7, 20] * 500
    ids = torch.full((2000, 20), 7)
    generator = torch.Generator().manual_seed(1)
    masked = mask_tokens(ids, lengths, 0.05, MASK, VOCABULARY, generator, redraw=redraw)
    row, column = masked.positions // 20, masked.positions % 20
    assert (column > 0).all()
    assert (column < torch.tensor(lengths)[row]).all()
    assert torch.unique(row).numel() == 2000
    last = torch.tensor(lengths)[row] - 1
    assert (column == last).any(), "the separator at the end may be hidden"


@pytest.mark.parametrize("redraw", [False, True])
def test_the_one_token_hidden_in_any_case_is_any_of_them(redraw):
    """Where chance would hide none: the separator as often as each word."""
    rows, length = 6000, 7
    ids = torch.full((rows, 9), 7)
    generator = torch.Generator().manual_seed(0)
    masked = mask_tokens(ids, [length] * rows, 1e-6, MASK, VOCABULARY, generator, redraw=redraw)
    assert len(masked.positions) == rows
    counts = torch.bincount(masked.positions % 9, minlength=9)
    assert counts[[0, 7, 8]].tolist() == [0, 0, 0]
    # a share of 1/6 has a standard error of 0.0048
    assert (counts[1:7] / rows - 1 / 6).abs().max() < 4 * 0.0048


def test_random_tokens_come_from_the_whole_vocabulary():
    ids = torch.full((3000, 20), 7)
    masked = mask_tokens(ids, [20] * 3000, 1.0, 4, 30, torch.Generator().manual_seed(0))
    shown = masked.input_ids.flatten()[masked.positions]
    counts = torch.bincount(shown[(shown != 4) & (shown != 7)], minlength=30).double()
    others = counts[[i for i in range(30) if i not in (4, 7)]]
    expected = 3000 * 19 * 0.1 / 30
    assert (others - expected).abs().max() < 4 * expected**0.5


def test_random_tokens_can_leave_out_those_at_the_start_of_the_vocabulary():
    ids = torch.full((3000, 20), 7)
    generator = torch.Generator().manual_seed(0)
    masked = mask_tokens(ids, [20] * 3000, 1.0, 4, 30, generator, random_from=20)
    shown = masked.input_ids.flatten()[masked.positions]
    counts = torch.bincount(shown[(shown != 4) & (shown != 7)], minlength=30).double()
    assert counts[:20].sum() == 0
    expected = 3000 * 19 * 0.1 / 10
    assert (counts[20:] - expected).abs().max() < 4 * expected**0.5


def hidden_in(rows, eligible, probability, redraw):
    """Return (rows, eligible), true where hidden, drawn beside longer and shorter reports."""
    lengths = [eligible + 1, 12, 2] * rows
    ids = torch.full((len(lengths), 14), 7)
    generator = torch.Generator().manual_seed(2)
    masked = mask_tokens(ids, lengths, probability, MASK, VOCABULARY, generator, redraw=redraw)
    hidden = torch.zeros(ids.numel(), dtype=torch.bool)
    hidden[masked.positions] = True
    return hidden.view_as(ids)[::3, 1 : eligible + 1].numpy()


@pytest.mark.parametrize("probability", [0.15, 0.6])
def test_redrawn_masks_are_independent_draws_given_that_a_word_is_hidden(probability):
    """Every set of hidden words as often as p^k (1 - p)^(n - k) / (1 - (1 - p)^n) says."""
    rows, n = 40000, 4
    found = hidden_in(rows, n, probability, redraw=True) @ (1 << np.arange(n))
    sets = np.array(list(product((0, 1), repeat=n)))[1:]
    share = np.where(sets, probability, 1 - probability).prod(1) / (1 - (1 - probability) ** n)
    observed = np.bincount(found, minlength=2**n)[sets @ (1 << np.arange(n))]
    assert observed.sum() == rows
    assert chisquare(observed, rows * share).pvalue > 0.01


def test_the_number_of_redrawn_words_is_the_binomial_from_one_on_and_the_other_rules_is_not():
    rows, n, probability = 20000, 9, 0.15
    exact = binom.pmf(np.arange(n + 1), n, probability)
    given_one = exact[1:] / exact[1:].sum()
    one_more = exact[1:] + np.eye(n)[0] * exact[0]  # where chance hides none, one is hidden
    counts = {
        redraw: np.bincount(hidden_in(rows, n, probability, redraw).sum(1), minlength=n + 1)[1:]
        for redraw in (False, True)
    }
    few = slice(5, None)  # six words and more are too rare for a class of their own

    def fits(observed, share):
        pooled = [np.append(x[:5], x[few].sum()) for x in (observed, rows * share)]
        return chisquare(*pooled).pvalue

    assert fits(counts[True], given_one) > 0.01
    assert fits(counts[False], one_more) > 0.01
    assert fits(counts[False], given_one) < 1e-100


@pytest.mark.parametrize("redraw", [False, True])
def test_probability_one_hides_every_word(redraw):
    lengths = [2, 5, 8]
    ids = torch.full((3, 8), 7)
    generator = torch.Generator().manual_seed(0)
    masked = mask_tokens(ids, lengths, 1.0, MASK, VOCABULARY, generator, redraw=redraw)
    assert masked.positions.tolist() == [1, 9, 10, 11, 12, *range(17, 24)]


def test_reports_are_not_changed_in_place():
    ids = torch.randint(5, VOCABULARY, (8, 12), generator=torch.Generator().manual_seed(0))
    before = ids.clone()
    mask_tokens(ids, [12] * 8, 0.6, MASK, VOCABULARY, torch.Generator().manual_seed(0))
    assert torch.equal(ids, before)


def test_the_seed_decides():
    first, again, other = many(0.15)[1], many(0.15)[1], many(0.15, seed=1)[1]
    assert torch.equal(first.input_ids, again.input_ids)
    assert not torch.equal(first.input_ids, other.input_ids)


@pytest.mark.parametrize("probability", [0.0, 1.5])
def test_illegal_probability(probability):
    with pytest.raises(ValueError, match="probability"):
        many(probability)
