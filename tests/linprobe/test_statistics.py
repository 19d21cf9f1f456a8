"""Statistics against hand-worked numbers, enumeration, SciPy, published tables and simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from linprobe.statistics import (
    critical_difference,
    data_sets_needed,
    detectable_difference,
    holm,
    mean_ranks,
    sign_flip_test,
    signed_rank,
    stars,
    swap_test,
)
from retfiner.common.bootstrap import Units, bootstrap_interval


def test_the_interval_is_as_wide_as_students_for_normal_draws():
    draws = stats.norm(3, 2).ppf((np.arange(200_000) + 0.5) / 200_000)
    low, high = bootstrap_interval(draws, [Units(10, [10])])
    half = 2 * np.sqrt(10 / 9) * stats.t.ppf(0.975, 9)
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-2)
    two = [Units(10, [10])] * 2
    for units, n in (([Units(20, [10, 10])], 20), (two, 10)):  # 9 degrees of freedom each
        low, high = bootstrap_interval(draws, units)
        half = 2 * np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, 18)
        assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-2)
    low, high = bootstrap_interval(draws, [Units(10**9, [8, 10**9])])  # the rare class alone counts
    half = 2 * stats.t.ppf(0.975, 7)
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-2)
    low, high = bootstrap_interval(draws, [Units(10, [10, 10])])  # each patient has both classes
    half = 2 * np.sqrt(10 / 9) * stats.t.ppf(0.975, 9)
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-2)
    assert bootstrap_interval(draws, [Units(10**6, [10**6])]) == pytest.approx(
        tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-3
    )


def test_no_interval_without_units_or_finite_draws():
    assert bootstrap_interval(np.ones(5), [Units(1, [1, 1, 1])]) is None  # a patient of all classes
    assert bootstrap_interval(np.ones(0), [Units(9, [9])]) is None
    assert bootstrap_interval(np.array([1.0, np.nan]), [Units(9, [9])]) is None


def test_ten_of_ten_are_no_certainty():
    """All resamples of ten who were found show 100 %; so would three of ten studies at 89 %."""
    lowest = stats.beta.ppf(0.025, 10, 1)  # Clopper and Pearson, 1934
    assert lowest == pytest.approx(0.69, abs=0.005)
    assert bootstrap_interval(np.full(1000, 100.0), [Units(10, [10])]) is None
    noise = 100 / 3 + 1e-14 * np.arange(1000)  # sums in another order
    assert bootstrap_interval(noise, [Units(10, [10])]) is None
    assert bootstrap_interval(np.r_[noise, 33.4], [Units(10, [10])]) is not None


def test_intervals_that_hold_together_reach_beyond_the_resamples():
    draws, confidence = np.random.default_rng(0).normal(size=1000), 1 - 0.05 / 435
    low, high = bootstrap_interval(draws, [Units(10**6, [10**6])], confidence)
    assert low < draws.min() and draws.max() < high
    assert (high - low) / 2 == pytest.approx(stats.norm.ppf(0.5 + confidence / 2), rel=0.1)


def test_swaps_of_a_mean_are_the_sign_flips_of_its_units():
    differences = np.array([0.3, 0.1, -0.2, 0.4, 0.5, 0.2])

    def change(swapped):
        return ((1 - 2 * swapped) * differences).mean(axis=1)

    signs = np.array(list(product((-1, 1), repeat=6)))
    exact = (np.abs((signs * differences).mean(1)) >= differences.mean() - 1e-12).mean()
    p = swap_test(change, 6, 20_000, np.random.default_rng(0))
    assert p == pytest.approx(exact, abs=0.01)
    assert swap_test(change, 6, 99, np.random.default_rng(0)) >= 1 / 100


def test_swaps_over_many_images_are_taken_fewer_at_once_and_come_to_the_same():
    differences = np.random.default_rng(1).normal(0.3, size=9)
    sizes = []

    def change(swapped):
        sizes.append(len(swapped))
        return ((1 - 2 * swapped) * differences).mean(axis=1)

    once = swap_test(change, 9, 999, np.random.default_rng(0))
    assert once == swap_test(change, 9, 999, np.random.default_rng(0), images=20_001)
    assert sizes == [1, 999, 1, *[99] * 10, 9]


def test_swaps_find_nothing_more_often_than_they_should():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        d = rng.normal(size=25)
        p = swap_test(lambda s, d=d: ((1 - 2 * s) * d).mean(1), 25, 199, rng)
        found.append(p <= 0.05)
    assert 0.02 < np.mean(found) < 0.08


def test_sign_flips_over_data_sets_hand_worked():
    assert sign_flip_test([1, 2, 3, 4]) == pytest.approx(2 / 16)
    # of 8 sums of +-1 +-2 +-3, at least 4 in size: 6, 4, -4, -6
    assert sign_flip_test([-1, 2, 3]) == pytest.approx(4 / 8)
    assert sign_flip_test([5]) == 1.0
    assert sign_flip_test([0.0, 0.0]) == 1.0
    assert sign_flip_test(np.full(30, 0.1)) < 1e-4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8))
def test_sign_flips_agree_with_enumeration(changes):
    values = np.array(changes, dtype=float)
    sums = np.array([np.dot(values, signs) for signs in product((-1, 1), repeat=len(values))])
    tails = (sums <= values.sum() + 1e-9).mean(), (sums >= values.sum() - 1e-9).mean()
    assert sign_flip_test(values) == pytest.approx(min(1.0, 2 * min(tails)))


def test_six_data_sets_are_needed():
    assert data_sets_needed() == 6
    assert data_sets_needed(0.01) == 8
    assert sign_flip_test(np.arange(1, 6)) > 0.05 > sign_flip_test(np.arange(1, 7))


def test_signed_ranks_hand_worked():
    # ranks of |d|: 1 2 3 4 5, of which -1 is negative: W+ = 14; P(W >= 14) = 2/32
    assert signed_rank([-1, 2, 3, 4, 5]).p == pytest.approx(4 / 32)
    # Wilcoxon (1945): Darwin's 15 pairs of maize, W- = 24, two-sided p = 0.041
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert signed_rank(darwin).p == pytest.approx(0.04126, abs=5e-6)
    assert signed_rank([0, 0]) == (1.0, 0)


def test_rounding_noise_breaks_no_tie():
    noisy = signed_rank([0.1 + 0.2 - 0.3, 0.3 - 0.2, 0.2 - 0.1, -0.1, 0.5])
    assert (noisy.p, noisy.n) == (signed_rank([1, 1, -1, 5]).p, 4)


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
def test_stars(p, mark):
    assert stars(p) == mark


def test_ranks_and_critical_difference():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    assert mean_ranks(scores).tolist() == [1.25, 1.75, 3.0]
    # Demsar (2006), table 5: q = 2.569 for four classifiers; his example has 14 data sets
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)


def test_the_detectable_difference_is_found_four_times_of_five():
    n, discordance = 200, 0.2
    effect = detectable_difference([n, n], discordance)
    assert effect == pytest.approx(2.8016 * np.sqrt(0.2 / 200 / 2), rel=1e-3)
    rng = np.random.default_rng(0)
    up, down = (discordance + effect) / 2, (discordance - effect) / 2
    steps = rng.choice([1, -1, 0], p=[up, down, 1 - up - down], size=(4000, 2, n))
    change = steps.mean(axis=2).mean(axis=1)
    error = np.sqrt((steps.var(axis=2) / n).sum(axis=1)) / 2
    assert (change / error > 1.96).mean() == pytest.approx(0.8, abs=0.03)
