"""Paired statistics against hand-worked numbers, enumeration, and SciPy."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from linprobe.report.wilcoxon import (
    holm,
    mean_interval,
    rank_sum_distribution,
    signed_rank,
    standard_deviation,
    stars,
)
from retfiner.common.errors import InputError


def enumerate_p(differences):
    """Try all 2^n signs of the observed ranks."""
    values = np.array([d for d in differences if d != 0], dtype=float)
    ranks = stats.rankdata(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = np.array([np.dot(ranks, signs) for signs in product((0, 1), repeat=len(values))])
    tails = (sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()
    return min(1.0, 2 * min(tails))


def test_hand_worked_without_ties():
    # ranks of |d|: 1 2 3 4 5, of which -1 is negative: W+ = 14; P(W >= 14) = 2/32
    result = signed_rank([-1, 2, 3, 4, 5])
    assert (result.statistic, result.n, result.zeros) == (14.0, 5, 0)
    assert result.p == pytest.approx(4 / 32)


def test_hand_worked_with_ties_and_a_zero():
    # |d| = 1 1 2 3, midranks 1.5 1.5 3 4, W+ = 8.5.
    # Of 16 sums, at least 8.5: 10, 8.5 and 8.5, so 3/16, and doubled 6/16
    result = signed_rank([0, 1, -1, 2, 3])
    assert (result.statistic, result.n, result.zeros) == (8.5, 4, 1)
    assert result.p == pytest.approx(6 / 16)


def test_five_seeds_reach_one_sixteenth_at_best():
    result = signed_rank([1, 2, 3, 4, 5])
    assert result.p == result.smallest_p == 0.0625


def test_published_example():
    # Wilcoxon (1945): Darwin's 15 pairs of maize, W- = 24, two-sided p = 0.041
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    result = signed_rank(darwin)
    assert result.statistic == 96
    assert result.p == pytest.approx(0.04126, abs=5e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 20, 35, 50])
def test_scipy_agrees_without_ties(n):
    differences = np.random.default_rng(n).normal(0.4, 1.0, size=n)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank(differences).p == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_enumeration_agrees_with_ties_and_zeros(differences):
    result = signed_rank(differences)
    if any(differences):
        assert result.p == pytest.approx(enumerate_p(differences))
    else:
        assert (result.p, result.n) == (1.0, 0)
    mirrored = signed_rank([-d for d in differences])
    assert mirrored.p == pytest.approx(result.p)


def test_many_pairs_stay_exact_and_small():
    assert signed_rank(np.arange(1, 101)).p == pytest.approx(2.0**-99)


def test_rounding_noise_breaks_no_tie():
    noisy = signed_rank([0.1 + 0.2 - 0.3, 0.3 - 0.2, 0.2 - 0.1, -0.1, 0.5])
    assert (noisy.zeros, noisy.n) == (1, 4)
    assert noisy.p == signed_rank([1, 1, -1, 5]).p


def test_the_distribution_is_one():
    distribution = rank_sum_distribution([1, 2, 3])
    assert distribution.tolist() == [1 / 8, 1 / 8, 1 / 8, 2 / 8, 1 / 8, 1 / 8, 1 / 8]


def test_what_is_not_finite_is_refused():
    with pytest.raises(InputError, match="not finite"):
        signed_rank([1.0, float("nan")])


def test_holm_hand_worked():
    # sorted .01 .02 .03 .04: times 4 3 2 1 = .04 .06 .06 .04, made monotone .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("p", "mark"),
    [(0.0009, "***"), (0.001, "**"), (0.0099, "**"), (0.01, "*"), (0.049, "*"), (0.05, "")],
)
def test_stars_are_those_of_the_paper(p, mark):
    assert stars(p) == mark


def test_interval_hand_worked():
    # mean 3, standard deviation sqrt(2.5), t(4) = 2.7764
    low, high = mean_interval([1, 2, 3, 4, 5])
    half = 2.776445 * np.sqrt(2.5 / 5)
    assert (low, high) == (pytest.approx(3 - half, abs=1e-5), pytest.approx(3 + half, abs=1e-5))
    assert mean_interval([1.0]) is None


def test_the_deviation_divides_by_one_less():
    assert standard_deviation([1, 3]) == pytest.approx(np.sqrt(2))
    assert np.isnan(standard_deviation([1]))
