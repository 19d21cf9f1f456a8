"""Recall, mean average precision and median rank, with intervals by patient and beside chance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.bootstrap import (
    FloatArray,
    Units,
    bootstrap_interval,
    count_units,
    resample,
)
from retfiner.evaluation.retrieval.ranking import Ranking
from retfiner.training.recall import RECALL_AT, chance_recall_at


def score(
    ranking: Ranking,
    candidates: int,
    patients: Sequence[str] | None,
    resamples: int,
    generator: np.random.Generator,
    weights: FloatArray | None = None,
) -> dict[str, dict[str, Any]]:
    """Score one direction of a retrieval; ``patients`` are those of the queries, or other units.

    ``weights`` (Q,) say how much each query counts, by default all alike.

    Returns:
        By metric: ``value``, ``interval`` (or None) and ``chance``.
    """
    ranks, n_right = ranking.ranks.numpy(), ranking.n_right.numpy()
    means = {f"recall@{k}": (ranks < k).astype(np.float64) for k in RECALL_AT}
    means["map"] = ranking.precision.numpy()
    medians = {"median_rank": ranks + 1.0}
    weights = np.ones(len(ranks)) if weights is None else weights
    values = {name: float(np.average(each, weights=weights)) for name, each in means.items()}
    values["median_rank"] = float(_medians(medians["median_rank"], weights[None])[0])
    chance = {f"recall@{k}": chance_recall_at(k, candidates, n_right, weights) for k in RECALL_AT}
    chance["map"] = chance_average_precision(candidates, n_right, weights)
    chance["median_rank"] = chance_median_rank(candidates, n_right, weights)
    intervals = patient_intervals(means, medians, weights, patients, resamples, generator)
    return {
        name: {"value": value, "interval": intervals.get(name), "chance": chance[name]}
        for name, value in values.items()
    }


def patient_intervals(
    means: Mapping[str, FloatArray],
    medians: Mapping[str, FloatArray],
    weights: FloatArray,
    patients: Sequence[str] | None,
    resamples: int,
    generator: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % expanded percentile intervals: queries are resampled, candidates stay.

    ``means`` are values (N,), one a query, of which the mean is reported, ``medians`` likewise,
    ``weights`` (N,) how much each counts. All share the draws of patients, or of queries where
    patients are None.

    Returns:
        An interval for each name; none where there is one patient, or all resamples agree.
    """
    n = len(next(iter({**means, **medians}.values())))
    if count_units(n, patients) < 2 or resamples == 0:
        return {}

    def statistics(draws: FloatArray) -> FloatArray:
        drawn = draws * weights
        total = drawn.sum(1)
        of_means = [drawn @ values / total for values in means.values()]
        return np.stack([*of_means, *(_medians(values, drawn) for values in medians.values())])

    drawn = resample(statistics, n, patients, resamples, generator)
    units = count_units(n, patients)
    ends = (bootstrap_interval(draws, [Units(units, [units])]) for draws in drawn)
    found = zip([*means, *medians], ends, strict=True)
    return {name: interval for name, interval in found if interval is not None}


def _medians(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the medians (R,) of values (N,), each counted as much as weights (R, N) say.

    Half of the weight lies at or below a median, half at or above; between two, their middle.
    """
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[:, order], axis=1)
    half, rounding = upto[:, -1:] / 2, 1e-9 * upto[:, -1:]
    low, high = (values[order][(upto < edge).sum(1)] for edge in (half - rounding, half + rounding))
    return (low + high) / 2


def chance_median_rank(
    total: int, n_right: NDArray[np.int64], weights: FloatArray | None = None
) -> float:
    """Return the place, from 1, within which half of the queries have found a right candidate.

    Of ``total`` candidates in random order, ``n_right`` (Q,) are right for each query, which counts
    by its ``weights`` (Q,).
    """
    almost_half = 0.5 - 1e-9  # with one right candidate the half is met exactly, but for rounding
    places = range(1, total)
    return 1.0 + bisect_left(
        places, almost_half, key=lambda k: chance_recall_at(k, total, n_right, weights)
    )


def chance_average_precision(
    total: int, n_right: NDArray[np.int64], weights: FloatArray | None = None
) -> float:
    """Return the expected average precision of a random order, averaged by weight over queries.

    With m of N right: H / N + (m - 1) / (N - 1) x (1 - H / N), H being the N-th harmonic number.
    Each right one stands at a place uniform over N, and each other right one is as likely to stand
    before it as the place's share of the rest.
    """
    if total == 1:
        return 1.0
    first = float(np.sum(1 / np.arange(1, total + 1))) / total
    expected = first + (n_right - 1) / (total - 1) * (1 - first)
    return float(np.average(expected, weights=weights))
