"""What is asked of a collection: the reports nearest to a B-scan, the B-scans nearest to words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retfiner.api import RefinedModel
from retfiner.browse.collection import Array, Collection

SHORTLIST = 16
"""How many of the nearest by cosine the match head may put in another order."""


class Near(NamedTuple):
    """Something near to what was asked about.

    Attributes:
        place: Its place among the collection's B-scans, or among its distinct reports, from 0.
        cosine: Cosine in the space that images and reports share.
        match: Probability of the match head, which is not calibrated; None if it was not asked.
    """

    place: int
    cosine: float
    match: float | None


def nearest_reports(
    model: RefinedModel, collection: Collection, image: Array, by_match: bool
) -> list[Near]:
    """Find the reports nearest to a B-scan.

    Args:
        model: A model that compares.
        collection: Its embedded collection.
        image: (H, W) in [0, 1].
        by_match: Put the nearest in the order of the match head.

    Returns:
        At most :data:`SHORTLIST` reports, the best first.
    """
    assert collection.report_vectors is not None
    cosines = collection.report_vectors @ model.encode_images(image)[0]
    places = _highest(cosines)
    matches = None
    if by_match:
        matches = model.match(image, [collection.reports[place] for place in places])
    return _ordered(places, cosines, matches)


def own_report(collection: Collection, place: int) -> tuple[float, int]:
    """Say how near its own report is to a B-scan of the collection.

    Args:
        collection: An embedded collection.
        place: The B-scan, from 0.

    Returns:
        The cosine, and the rank among all distinct reports by cosine, 1 being the nearest.
    """
    assert collection.image_vectors is not None and collection.report_vectors is not None
    cosines = collection.report_vectors @ collection.image_vectors[place]
    own = cosines[collection.report_of[place]]
    return float(own), 1 + int((cosines > own).sum())


def nearest_bscans(
    model: RefinedModel, collection: Collection, words: str, by_match: bool
) -> list[Near]:
    """Find the B-scans nearest to words.

    Args:
        model: A model that compares.
        collection: Its embedded collection.
        words: A text.
        by_match: Put the nearest in the order of the match head.

    Returns:
        At most :data:`SHORTLIST` B-scans, the best first.

    Raises:
        InputError: If one of them can be read no longer, or the text has no words.
    """
    assert collection.image_vectors is not None
    cosines = collection.image_vectors @ model.encode_texts(words)[0]
    places = _highest(cosines)
    matches = None
    if by_match:
        matches = model.match([collection.read(place) for place in places], words)
    return _ordered(places, cosines, matches)


def _highest(cosines: Array) -> NDArray[np.int64]:
    return np.argsort(-cosines, kind="stable")[:SHORTLIST]


def _ordered(places: NDArray[np.int64], cosines: Array, matches: Array | None) -> list[Near]:
    found = [
        Near(int(place), float(cosines[place]), None if matches is None else float(matches[rank]))
        for rank, place in enumerate(places)
    ]
    if matches is None:
        return found
    return [found[rank] for rank in np.argsort(-matches, kind="stable")]
