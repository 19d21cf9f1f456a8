"""Paired statistics, as pure functions of arrays: signed-rank test, Holm, intervals, stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, t

from retfiner.common.errors import InputError

DECIMALS = 12
"""Differences are rounded to so many decimals, so that rounding noise breaks no tie."""
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class SignedRank:
    """Result of a Wilcoxon signed-rank test.

    Attributes:
        statistic: Sum of the ranks of the positive differences.
        p: Exact two-sided p-value.
        n: Number of differences that are not zero.
        zeros: Number of differences that are zero, which are left out.
    """

    statistic: float
    p: float
    n: int
    zeros: int

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that so many pairs can reach: 2 / 2^n, and 1 without any."""
        return min(1.0, 2.0 ** (1 - self.n))


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Test whether paired differences are symmetric about zero (Wilcoxon, 1945).

    The p-value is exact for any number of pairs: the distribution of the rank sum over all 2^n
    signs, given the observed ranks, by dynamic programming. Differences of zero are left out, as
    Wilcoxon did; tied sizes share the mean of their ranks. Two-sided: twice the smaller tail, at
    most 1.

    Args:
        differences: (n,) refined minus base.

    Raises:
        InputError: If a difference is not finite.
    """
    values = np.round(np.asarray(differences, dtype=np.float64).ravel(), DECIMALS)
    if not np.isfinite(values).all():
        raise InputError("A paired difference is not finite.", got=values.tolist())
    nonzero = values[values != 0]
    zeros = len(values) - len(nonzero)
    if len(nonzero) == 0:
        return SignedRank(0.0, 1.0, 0, zeros)
    ranks = rankdata(np.abs(nonzero))
    doubled = np.rint(2 * ranks).astype(np.int64)  # midranks are halves: twice them, whole numbers
    distribution = rank_sum_distribution(doubled)
    observed = int(doubled[nonzero > 0].sum())
    lower, upper = distribution[: observed + 1].sum(), distribution[observed:].sum()
    p = min(1.0, 2.0 * float(min(lower, upper)))
    return SignedRank(observed / 2, p, len(nonzero), zeros)


def rank_sum_distribution(ranks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each sum of positive ranks when every sign is a fair coin.

    Args:
        ranks: (n,) whole numbers, not negative.

    Returns:
        (sum of ranks + 1,) probabilities of the sums 0, 1, 2, ...
    """
    distribution = np.zeros(int(np.sum(ranks)) + 1)
    distribution[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(distribution)
        shifted[int(rank) :] = distribution[: len(distribution) - int(rank)]
        distribution = 0.5 * (distribution + shifted)
    return distribution


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false claim in the family is held (Holm, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none may fall below a smaller one's, nor
    exceed 1.

    Args:
        p_values: The family, in any order.

    Returns:
        Adjusted values in the same order.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def stars(p: float) -> str:
    """Mark significance: *** below 0.001, ** below 0.01, * below 0.05, otherwise nothing."""
    return next((mark for limit, mark in STARS if p < limit), "")


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of a mean.

    Args:
        values: (n,) for example one change a seed.
        confidence: Coverage.

    Returns:
        Lower and upper end; None for fewer than two values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return None
    half = float(t.ppf(0.5 + confidence / 2, len(sample) - 1) * standard_deviation(sample))
    half /= float(np.sqrt(len(sample)))
    return float(sample.mean()) - half, float(sample.mean()) + half


def standard_deviation(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1); NaN for fewer than two values."""
    sample = np.asarray(values, dtype=np.float64)
    return float(sample.std(ddof=1)) if len(sample) > 1 else float("nan")
