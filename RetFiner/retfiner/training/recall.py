"""How well images and reports find each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALL_AT = (1, 5, 10)


class Pairing(NamedTuple):
    """Which of the distinct images and reports of N pairs go together; on the CPU.

    Attributes:
        report: (N,) which of the U distinct reports each pair has, from 0.
        image: (N,) which of the V distinct images each pair has, from 0.
        reports: (U,) the first pair with each report.
        images: (V,) the first pair with each image.
        by_report: (N,) the pairs, sorted by report.
        by_image: (N,) the pairs, sorted by image.
    """

    report: Tensor
    image: Tensor
    reports: Tensor
    images: Tensor
    by_report: Tensor
    by_image: Tensor

    @classmethod
    def of(cls, report_ids: Tensor, image_ids: Tensor | None = None) -> Pairing:
        """Read it off ids, (N,), equal for what is identical; by default no image is."""
        place = torch.arange(len(report_ids))
        ids = [report_ids.cpu(), place if image_ids is None else image_ids.cpu()]
        report, image = (each.unique(return_inverse=True)[1] for each in ids)
        firsts = [
            torch.full((int(each.max()) + 1,), len(place)).scatter_reduce(0, each, place, "amin")
            for each in (report, image)
        ]
        orders = (each.argsort(stable=True) for each in (report, image))
        return cls(report, image, *firsts, *orders)

    def reports_of(self, pairs: Tensor) -> Tensor:
        """Return (Q, U), true for the reports that the images of some pairs (Q,) have."""
        row, pair = _members(self.image, self.by_image, self.image[pairs])
        return _marked(len(pairs), len(self.reports), row, self.report[pair])

    def images_of(self, reports: Tensor) -> Tensor:
        """Return (Q, V), true for the images that have some reports (Q,)."""
        row, pair = _members(self.report, self.by_report, reports)
        return _marked(len(reports), len(self.images), row, self.image[pair])


def _members(group: Tensor, order: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """List the members of some groups (Q,): the place of each one's group among them, and itself.

    ``group`` (N,) says which group each is of, ``order`` (N,) sorts them by it.
    """
    ordered = group[order]
    begin, end = (torch.searchsorted(ordered, wanted, right=right) for right in (False, True))
    row = torch.arange(len(wanted)).repeat_interleave(end - begin)
    before = (end - begin).cumsum(0) - (end - begin)
    return row, order[begin[row] + torch.arange(len(row)) - before[row]]


def _marked(rows: int, columns: int, row: Tensor, column: Tensor) -> Tensor:
    marked = torch.zeros(rows, columns, dtype=torch.bool)
    marked[row, column] = True
    return marked


def first_right(scores: Tensor, is_right: Tensor) -> Tensor:
    """Return how many wrong candidates stand before the first right one of each query.

    Candidates that score the same as the first right one are ranked before it, and so are all of
    them where scores are not numbers: a model that tells nothing apart finds nothing.

    Args:
        scores: (Q, M).
        is_right: (Q, M) on the CPU, with a right candidate for each query.

    Returns:
        (Q,) int64 ranks on the CPU, 0 for the first place.

    Raises:
        ValueError: If a query has no right candidate.
    """
    if not is_right.any(1).all():
        raise ValueError("a query has no right candidate")
    is_wrong = ~is_right.to(scores.device)
    best = scores.masked_fill(is_wrong, -torch.inf).amax(1, keepdim=True)
    return (~(scores < best) & is_wrong).sum(1).cpu()


def chance_recall_at(
    k: int,
    total: int,
    n_right: NDArray[np.int64],
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the mean chance that a right candidate is among the first k of a random order.

    Args:
        k: Places looked at.
        total: Number of candidates.
        n_right: (Q,) number of right candidates of each query.
        weights: (Q,) how much each query counts, by default all alike.
    """
    distinct, which = np.unique(n_right, return_inverse=True)
    missed = [_chance_of_none(min(k, total), int(n), total) for n in distinct]
    return float(1 - np.average(missed, weights=np.bincount(which, weights)))


def _chance_of_none(drawn: int, right: int, total: int) -> float:
    """Return the chance that none is right, as SciPy's hypergeom; training does not wait for it."""
    few, many = sorted((drawn, right))
    places = np.arange(few)
    return float(np.prod(np.maximum(total - many - places, 0) / (total - places)))


def chance_recall(report_ids: Tensor, image_ids: Tensor | None = None) -> dict[str, float]:
    """Return what a random order recalls; identical reports and images raise it.

    Args:
        report_ids: (N,), equal for identical reports.
        image_ids: (N,), equal for identical images; by default none are.

    Returns:
        The same names as :func:`retrieval_recall`, each in [0, 1].
    """
    pairs = Pairing.of(report_ids, image_ids)
    report, image = pairs.report.numpy(), pairs.image.numpy()
    known = np.unique(np.stack([image, report], 1), axis=0)
    reports, images = len(pairs.reports), len(pairs.images)
    of_image = np.bincount(known[:, 0], minlength=images)[image]
    directions = {
        "image_to_text": (reports, of_image, 1 / np.bincount(report)[report]),
        "text_to_image": (images, np.bincount(known[:, 1], minlength=reports), np.ones(reports)),
    }
    return {
        f"{name}_recall@{k}": chance_recall_at(k, total, n_right, weights)
        for name, (total, n_right, weights) in directions.items()
        for k in RECALL_AT
    }


def retrieval_recall(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    report_ids: Tensor,
    image_ids: Tensor | None = None,
    chunk: int = 1024,
) -> dict[str, float]:
    """Compute recall@k between images and reports, in both directions.

    Identical reports are one report, as a query and as a candidate: copies are found or missed
    together and would count one answer many times, and copies of a wrong one would fill the first
    places. Each image looks for its own among the distinct reports, each distinct report for any
    image that carries it. Images that share a report count as one query together: a model that puts
    the commonest reports first, whatever the image shows, has what chance gives.

    Likewise, identical images are one image: each of the reports that it has in one pair or another
    is right for it, and as a candidate it is found once, by the best of its scores.

    Args:
        image_embeddings: (N, E) unit vectors.
        text_embeddings: (N, E) unit vectors.
        report_ids: (N,), equal for identical reports.
        image_ids: (N,), equal for identical images; by default none are.
        chunk: Queries compared at a time; memory is chunk x N.

    Returns:
        ``image_to_text_recall@k`` and ``text_to_image_recall@k`` for k in 1, 5, 10, each in [0, 1].
    """
    pairs = Pairing.of(report_ids, image_ids)
    images, texts = image_embeddings.float(), text_embeddings.float()
    texts = texts[pairs.reports.to(texts.device)]
    found = {
        "image_to_text": [
            first_right(part @ texts.T, pairs.reports_of(some))
            for part, some in _parts(images, chunk)
        ],
        "text_to_image": [
            first_right(_of_images(part @ images.T, pairs), pairs.images_of(some))
            for part, some in _parts(texts, chunk)
        ],
    }
    votes = {
        "image_to_text": 1 / torch.bincount(pairs.report)[pairs.report],
        "text_to_image": torch.ones(len(texts)),
    }
    return {
        f"{name}_recall@{k}": (
            ((torch.cat(ranks) < k) * votes[name]).sum() / votes[name].sum()
        ).item()
        for name, ranks in found.items()
        for k in RECALL_AT
    }


def _parts(queries: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give so many queries at a time, and their places."""
    return zip(queries.split(chunk), torch.arange(len(queries)).split(chunk), strict=True)


def _of_images(scores: Tensor, pairs: Pairing) -> Tensor:
    """Turn scores of N pairs' images, (Q, N), into those of V distinct ones: the best of each."""
    if len(pairs.images) == scores.shape[1]:
        return scores[:, pairs.images.to(scores.device)]
    places = pairs.image.to(scores.device).expand_as(scores)
    lowest = scores.new_full((len(scores), len(pairs.images)), -torch.inf)
    return lowest.scatter_reduce(1, places, scores, "amax")
