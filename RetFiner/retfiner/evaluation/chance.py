"""What a random order of the candidates would score: to be read beside every number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def chance_recall_at(k: int, total: int, n_right: NDArray[np.int64]) -> float:
    """Return the mean chance that a right candidate is among the first k of a random order.

    Args:
        k: Places looked at.
        total: Number of candidates.
        n_right: (Q,) number of right candidates of each query.
    """
    return float(np.mean(_found_within(np.minimum(k, total), total, n_right)))


def chance_median_rank(total: int, n_right: NDArray[np.int64]) -> float:
    """Return the place, from 1, within which half of the queries have found a right candidate."""
    low, high = 1, total
    while low < high:
        middle = (low + high) // 2
        if np.mean(_found_within(middle, total, n_right)) >= 0.5:
            high = middle
        else:
            low = middle + 1
    return float(low)


def chance_average_precision(total: int, n_right: NDArray[np.int64]) -> float:
    """Return the expected average precision of a random order, averaged over queries.

    With m of N right: H / N + (m - 1) / (N - 1) x (1 - H / N), H being the N-th harmonic number.
    Each right one stands at a place uniform over N, and each other right one is as likely to stand
    before it as the place's share of the rest.
    """
    if total == 1:
        return 1.0
    first = math.fsum(1 / place for place in range(1, total + 1)) / total
    return float(np.mean(first + (n_right - 1) / (total - 1) * (1 - first)))


def _found_within(k: int, total: int, n_right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 - C(N - m, k) / C(N, k) for each m."""
    distinct, inverse = np.unique(n_right, return_inverse=True)
    log = [
        math.lgamma(total - m + 1) - math.lgamma(total - m - k + 1)
        - math.lgamma(total + 1) + math.lgamma(total - k + 1)
        if m <= total - k else -math.inf
        for m in distinct.tolist()
    ]  # fmt: skip
    return (1 - np.exp(log))[inverse]
