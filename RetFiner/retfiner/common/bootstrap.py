"""Bootstrap over patients: a patient's images are no independent evidence and stay together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BLOCK_ELEMENTS = 2_000_000
"""How many weights are held at once while resampling; bounds memory, never changes a value."""
ROUNDING = 1e-10
"""Share of their size by which equal draws may differ, being sums in another order."""
FEWEST_BEYOND = 2
"""Draws beyond an end of an interval that its place is read from."""


def count_units(n: int, patients: Sequence[str] | None) -> int:
    """Return how many units are drawn: patients, or images where patients are not known."""
    return n if patients is None else len(set(patients))


def resample(
    statistics: Callable[[FloatArray], FloatArray],
    n: int,
    patients: Sequence[str] | None,
    resamples: int,
    generator: np.random.Generator,
) -> FloatArray:
    """Compute statistics on resamples of N images, patients being drawn with replacement.

    A resample is the sample itself with each image counted zero, one or more times: the statistics
    take such weights (R, N), one row a resample, and return M values of each: (M, R). All share the
    draws. ``patients`` (N,) says whose each image is; None draws images.

    Returns:
        (M, resamples).
    """
    unit = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1]
    units, block = count_units(n, patients), max(1, BLOCK_ELEMENTS // n)
    parts = [statistics(np.ones((1, n)))[:, :0]]  # the shape, should there be no resample
    for done in range(0, resamples, block):
        size = min(block, resamples - done)
        drawn = generator.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        parts.append(statistics(counts[:, unit].astype(np.float64)))
    return np.concatenate(parts, axis=1)


class Units(NamedTuple):
    """How many units (patients) a data set has, and how many have an image of each class."""

    total: int
    of_classes: Sequence[int]


def bootstrap_interval(
    draws: FloatArray, units: Sequence[Units], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Expanded percentile interval of a statistic (Hesterberg, 2015), for means over classes.

    The plain percentile interval is too narrow for few units, as a normal interval with the
    variance of n is. So its tails are those that make it as wide as Student's t does. Each class
    of n units adds 1 / n to the variance, from which Satterthwaite (1946) has the degrees of
    freedom, at most those of all units, which may have images of several classes. The bootstrap
    sees (N - 1) / N of it, for all N units of a data set: within a class (n - 1) / n, but it also
    draws how many units the class has. Of a single class this is Hesterberg's interval; for many
    units it is the plain one. Where more than 95 % are asked for (many pairs together) and R draws
    hold fewer than :data:`FEWEST_BEYOND` beyond an end, it is reached from there as a normal tail.

    ``draws`` (R,) is the statistic on resamples of the units; ``units`` are those of each data set
    that it is a mean over (1 of a class counts as 2). None with fewer than two units, without
    finite draws, or where all draws are the same: of ten patients who were all found it would say
    100 to 100, where 69 (Clopper and Pearson, 1934) is as well possible.
    """
    from scipy.stats import norm, t  # half a second, which a wrong path does not wait for

    if max(one.total for one in units) < 2 or not len(draws) or not np.isfinite(draws).all():
        return None
    if np.ptp(draws) <= ROUNDING * max(1.0, np.abs(draws).max()):
        return None
    n = np.array([max(count, 2) for one in units for count in one.of_classes], dtype=np.float64)
    sizes = [len(one.of_classes) for one in units]
    totals = np.array([max(one.total, 2) for one in units])
    share = np.repeat(np.array(sizes) ** -2.0, sizes) / n
    freedom = min(share.sum() ** 2 / (share**2 / (n - 1)).sum(), (totals - 1).sum())
    unseen = share.sum() / (share * np.repeat(1 - 1 / totals, sizes)).sum()
    usual, wide = np.sqrt(unseen) * t.ppf([0.975, 0.5 + confidence / 2], freedom)
    tail = max(norm.cdf(-wide), min(norm.cdf(-usual), FEWEST_BEYOND / len(draws)))
    low, middle, high = np.quantile(draws, [tail, 0.5, 1 - tail])
    beyond = max(-wide / norm.ppf(tail), 1.0)
    return float(middle + beyond * (low - middle)), float(middle + beyond * (high - middle))
