"""Bootstrap over patients: a patient's images are no independent evidence and stay together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BLOCK_ELEMENTS = 2_000_000
"""How many weights are held at once while resampling; bounds memory, never changes a value."""


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
