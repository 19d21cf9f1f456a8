"""How well a mask is met: Dice and the 95th percentile of the surface distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

Mask = NDArray[np.bool_]


def dice(found: Mask, truth: Mask) -> float:
    """Twice what is common over the sum of both (Dice, 1945); NaN where both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else float("nan")


def hausdorff_95(found: Mask, truth: Mask) -> float:
    """95th percentile of the distances from each one's border to the other's, in pixels.

    Distances of both directions are pooled, as MedPy's ``hd95`` does. NaN where one is empty: no
    distance is the right one then, and Dice tells.
    """
    if not found.any() or not truth.any():
        return float("nan")
    borders = [mask & ~binary_erosion(mask) for mask in (found, truth)]
    away = [distance_transform_edt(~border) for border in borders]
    distances = np.concatenate([away[1][borders[0]], away[0][borders[1]]])
    return float(np.percentile(distances, 95))
