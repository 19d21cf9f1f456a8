"""Statistics as pure functions of arrays: tests of patients and of data sets, ranks.

``benchmarks/error_rates.py`` measures what they promise: coverage and false-positive rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, permutation_test, rankdata, studentized_range, wilcoxon

from retfiner.common.bootstrap import BLOCK_ELEMENTS

FloatArray = NDArray[np.float64]
DECIMALS = 12
"""Differences are rounded to so many decimals, so that rounding noise breaks no tie."""
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
MOST_FLIPS = 2**16
"""Sign flips that are all gone through; of more (17 data sets), so many are drawn."""


def swap_test(
    change: Callable[[FloatArray], FloatArray],
    units: int,
    swaps: int,
    generator: np.random.Generator,
    images: int = 0,
) -> float:
    """Test whether two models are exchangeable: swap their predictions of whole patients.

    A Monte Carlo permutation test (Good, 2005), two-sided, valid for every metric and any number of
    units. The observed labelling counts as one of the permutations, so that p is never 0.
    ``change`` gives the change (B,) for swaps (B, units), 1 where a unit's predictions are swapped;
    of ``images`` that it spreads them over, B is the fewer the more there are.
    """
    observed = abs(round(float(change(np.zeros((1, units)))[0]), DECIMALS))
    extreme, block = 0, max(1, BLOCK_ELEMENTS // max(units, images))
    for done in range(0, swaps, block):
        size = min(block, swaps - done)
        drawn = generator.integers(2, size=(size, units)).astype(np.float64)
        extreme += int((np.abs(np.round(change(drawn), DECIMALS)) >= observed).sum())
    return (extreme + 1) / (swaps + 1)


def sign_flip_test(changes: ArrayLike) -> float:
    """Test the claim "it helps over data sets": is the mean of their changes zero?

    Exact (Fisher, 1935): under the null each data set's change might as well have had the other
    sign. The data sets are the units: what holds for these shall hold for others like them. Of
    (K,) changes, seeds averaged, the two-sided p is a multiple of 2 / 2^K; 1 for a single one.
    """
    values = np.round(np.asarray(changes, dtype=np.float64), DECIMALS)
    if len(values) < 2:
        return 1.0
    result = permutation_test(
        (values,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=MOST_FLIPS,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def data_sets_needed(alpha: float = 0.05) -> int:
    """Say how many data sets an exact test over them needs to be able to fall below ``alpha``."""
    return math.floor(1 - math.log2(alpha)) + 1  # 2^(1 - K) < alpha


class SignedRank(NamedTuple):
    """A Wilcoxon signed-rank test: its two-sided p-value, and of how many differences."""

    p: float
    n: int


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Test whether paired differences are symmetric about zero (Wilcoxon, 1945), as SciPy does.

    Exact for up to 50 without ties, else by the normal approximation; zeros are left out.
    """
    values = np.round(np.asarray(differences, dtype=np.float64).ravel(), DECIMALS)
    values = values[values != 0]
    return SignedRank(float(wilcoxon(values).pvalue) if len(values) else 1.0, len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false claim in the family is held (Holm, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none may fall below a smaller one's, nor
    exceed 1. The order stays.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1.0)
    return adjusted.tolist()


def stars(p: float) -> str:
    """Mark significance: *** below 0.001, ** below 0.01, * below 0.05, otherwise nothing."""
    return next((mark for limit, mark in STARS if p < limit), "")


def mean_ranks(scores: FloatArray) -> FloatArray:
    """Rank M models on each of K data sets, the highest of (K, M) first, and average: (M,).

    Ties share their mean rank.
    """
    return np.asarray(rankdata(-np.round(scores, DECIMALS), axis=1).mean(axis=0))


def critical_difference(models: int, data_sets: int, alpha: float = 0.05) -> float:
    """Give how far two mean ranks must lie apart to differ, all pairs compared (Nemenyi, 1963).

    As in Demsar, 2006: q / sqrt(2) of the studentized range, times sqrt(M (M + 1) / (6 K)).
    """
    q = float(studentized_range.ppf(1 - alpha, models, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(models * (models + 1) / (6 * data_sets)))


def detectable_difference(images_of_class: Iterable[int], discordance: float = 0.2) -> float:
    """Say which change in balanced accuracy a test set finds with a power of 80 %, at p < .05.

    A paired comparison (McNemar): the change in a class's recall has a variance of at most
    ``discordance`` / n, where ``discordance`` is the share of images that one of the two models
    gets right and the other wrong; a fifth is what two models of some 70 to 80 % show. Of
    independent units (patients, where known) of each class, it gives the change as a share.
    """
    counts = np.asarray(list(images_of_class), dtype=np.float64)
    error = np.sqrt((discordance / counts).sum()) / len(counts)
    return float((norm.ppf(0.975) + norm.ppf(0.8)) * error)
