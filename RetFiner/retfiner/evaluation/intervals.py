"""Bootstrap intervals for means and medians over queries, patients drawn with replacement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
CONFIDENCE = 0.95


def patient_intervals(
    means: Mapping[str, NDArray[np.float64]],
    medians: Mapping[str, NDArray[np.float64]],
    patients: Sequence[str] | None,
    resamples: int,
    generator: np.random.Generator,
) -> dict[str, Interval]:
    """Compute 95 % percentile intervals; candidates stay as they are, queries are resampled.

    Args:
        means: Values (N,), one a query, of which the mean is reported.
        medians: Likewise, of which the median is reported.
        patients: Whose each query is; None draws queries.
        resamples: How many resamples.
        generator: Draws them; all values share the draws.

    Returns:
        An interval for each name; none where there is one patient or no resample.
    """
    n = len(next(iter({**means, **medians}.values())))
    unit = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1]
    units = int(unit.max()) + 1
    if units < 2 or resamples == 0:
        return {}
    sums = np.stack([np.bincount(unit, values, units) for values in means.values()], 1)
    sizes = np.bincount(unit, minlength=units)
    sorted_medians = [(np.sort(v), unit[np.argsort(v, kind="stable")]) for v in medians.values()]
    drawn = np.empty((resamples, len(means) + len(medians)))
    for row in range(resamples):
        counts = np.bincount(generator.integers(units, size=units), minlength=units)
        drawn[row, : len(means)] = counts @ sums / (counts @ sizes)
        for column, (values, owners) in enumerate(sorted_medians, len(means)):
            drawn[row, column] = _weighted_median(values, counts[owners])
    tail = (1 - CONFIDENCE) / 2
    edges = np.quantile(drawn, [tail, 1 - tail], axis=0)
    names = [*means, *medians]
    return {name: (float(low), float(high)) for name, low, high in zip(names, *edges, strict=True)}


def _weighted_median(ordered: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    """Return the median of sorted values, each counted as often as its weight says."""
    upto = np.cumsum(weights)
    middle = ((upto[-1] - 1) // 2, upto[-1] // 2)
    low, high = np.searchsorted(upto, middle, side="right")
    return float(ordered[low] + ordered[high]) / 2
