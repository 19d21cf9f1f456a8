"""Pictures that look the same: a perceptual hash that survives another encoding or size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfiner.vision.images.scaling import to_luma

SIDE = 16
SAME = 40
"""Bits of 256 that two pictures of one B-scan may differ in. Of Kermany's B-scans, written again as
JPEG (quality 40 and 75), at half size or 224 pixels wide, none differed in more than 34; no two of
161 different ones in fewer than 63."""
BLOCK = 2048

Bits = NDArray[np.bool_]


def perceptual_hash(image: NDArray[np.float32]) -> Bits:
    """Hash (H, W), or luma of (H, W, 3): is each of 16 x 17 cells darker than its right neighbour?

    A difference hash (Krawetz, 2013) of 256 bits.
    """
    cells = Image.fromarray(to_luma(image)).resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    values = np.asarray(cells)
    return (values[:, 1:] > values[:, :-1]).ravel()


def _distances(first: Bits, second: Bits) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Count the bits that differ, a block of the second's columns at a time, with its first one."""
    left = first.astype(np.float32)
    for start in range(0, len(second), BLOCK):
        right = second[start : start + BLOCK].astype(np.float32)
        yield start, left.sum(1)[:, None] + right.sum(1) - 2 * left @ right.T


def same_images(first: Bits, second: Bits) -> list[tuple[int, int]]:
    """List the pairs that look the same: of each image of the second, the nearest in the first."""
    return [
        (int(distance[:, k].argmin()), start + k)
        for start, distance in _distances(first, second)
        for k in np.flatnonzero(distance.min(axis=0) <= SAME).tolist()
    ]


def same_pairs(hashes: Bits) -> list[tuple[int, int]]:
    """List the pairs within one set that look the same: of each image, the first like it."""
    return [
        (int(i), start + k)
        for start, distance in _distances(hashes, hashes)
        for k, i in enumerate((distance <= SAME).argmax(axis=0))
        if i < start + k
    ]
