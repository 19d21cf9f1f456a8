"""Draw some of the training images: a share by class, of whole patients; or few of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def draw_fraction(
    labels: IntArray, units: Sequence[str], fraction: float, generator: np.random.Generator
) -> IntArray:
    """Draw a share of the images, the same share of each class.

    A patient's images are taken or left together; a patient belongs to the rarest class that he or
    she has an image of, and patients of a class are taken until its share is reached. With
    generators of the same seed, a smaller draw is contained in a larger one, unless a class is so
    rare that it had to be filled up to one image.

    Args:
        labels: (N,) class of each image.
        units: (N,) what is drawn together: the patient of each image, or itself.
        fraction: Share of the images, above 0; 1 takes all.
        generator: Draws the order in which patients are taken.

    Returns:
        Sorted indices, at least one image of every class among ``labels``.
    """
    if fraction >= 1:
        return np.arange(len(labels))
    unit = np.unique(units, return_inverse=True)[1]
    counts = np.bincount(labels)
    by_rarity = np.argsort(counts, kind="stable")
    rank = np.empty_like(by_rarity)
    rank[by_rarity] = np.arange(len(by_rarity))
    n_units = int(unit.max()) + 1
    home = np.full(n_units, len(counts))
    np.minimum.at(home, unit, rank[labels])
    sizes = np.bincount(unit, minlength=n_units)
    order = generator.permutation(n_units)
    taken = np.zeros(n_units, dtype=bool)
    for stratum in range(len(counts)):
        members = order[home[order] == stratum]
        wanted = max(1, round(fraction * int(sizes[members].sum())))
        before = np.cumsum(sizes[members]) - sizes[members]
        taken[members[before < wanted]] = True
    for label in np.unique(labels):
        having = np.isin(order, unit[labels == label])
        if not taken[order[having]].any():
            taken[order[having][0]] = True
    return np.flatnonzero(taken[unit])


def draw_shots(
    labels: IntArray, units: Sequence[str], shots: int, generator: np.random.Generator
) -> IntArray:
    """Draw so many images of each class, of as many patients as there are.

    A patient's second image is only taken when all have given a first. With generators of the same
    seed, a smaller draw is contained in a larger one. Arguments as of :func:`draw_fraction`.

    Returns:
        Sorted indices; all images of a class that has no more.
    """
    order = generator.permutation(len(labels))
    unit = np.unique(units, return_inverse=True)[1]
    turn = np.empty(len(labels), np.int64)  # which of its patient's images of a class it is
    seen: dict[tuple[int, int], int] = {}
    for row in order.tolist():
        key = int(unit[row]), int(labels[row])
        turn[row] = seen[key] = seen.get(key, -1) + 1
    by_turn = order[np.argsort(turn[order], kind="stable")]
    taken = [by_turn[labels[by_turn] == label][:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(taken))
