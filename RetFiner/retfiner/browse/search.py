"""What is asked of a collection: the reports nearest to a B-scan, the B-scans nearest to words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from retfiner.api import RefinedModel
from retfiner.browse.collection import Array, Collection

SHORTLIST = 16
"""How many of the nearest by cosine the match head may put in another order."""


class Neighbour(NamedTuple):
    """Something near to what was asked about.

    Attributes:
        place: Its place among the collection's B-scans, or among its distinct reports, from 0.
        cosine: Cosine in the space that images and reports share.
        match: Probability of the match head, which is not calibrated; None if it was not asked.
    """

    place: int
    cosine: float
    match: float | None = None


def nearest_reports(
    model: RefinedModel, collection: Collection, image: Array, by_match: bool
) -> list[Neighbour]:
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
    found = _nearest(collection.report_vectors @ model.encode_images(image)[0])
    if not by_match:
        return found
    return _by_match(found, model.match(image, [collection.reports[n.place] for n in found]))


def nearest_bscans(
    model: RefinedModel, collection: Collection, words: str, by_match: bool
) -> list[Neighbour]:
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
    found = _nearest(collection.image_vectors @ model.encode_texts(words)[0])
    if not by_match:
        return found
    return _by_match(found, model.match([collection.read(n.place) for n in found], words))


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


def _nearest(cosines: Array) -> list[Neighbour]:
    places = np.argsort(-cosines, kind="stable")[:SHORTLIST]
    return [Neighbour(int(place), float(cosines[place])) for place in places]


def _by_match(found: list[Neighbour], matches: Array) -> list[Neighbour]:
    judged = [n._replace(match=float(m)) for n, m in zip(found, matches, strict=True)]
    return [judged[rank] for rank in np.argsort(-matches, kind="stable")]
