"""Who finds whom: ranks, average precision and shortlists, in memory that the pairs do not square.

The convention is that of :mod:`retfiner.training.recall`: identical reports are one report. An
image looks for its own among the distinct reports; a report finds any image that carries it. A
wrong candidate that scores the same as a right one is placed before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

ELEMENTS = 1_000_000
"""Scores that are held at a time; bounds memory, never changes a value."""


@dataclass(frozen=True)
class Ranking:
    """What Q queries find among M candidates.

    Attributes:
        ranks: (Q,) place of the first right candidate, 0 for the first.
        precision: (Q,) average precision, float64.
        n_right: (Q,) number of right candidates.
        shortlist: (Q, K) the best candidates, best first.
        scores: (Q, K) their cosines.
        is_right: (Q, K) which of them are right.
        matches: (Q, R) match probability of the first R, in their order; None before re-ranking.
    """

    ranks: Tensor
    precision: Tensor
    n_right: Tensor
    shortlist: Tensor
    scores: Tensor
    is_right: Tensor
    matches: Tensor | None = None

    def repeat(self, index: Tensor) -> Ranking:
        """Give each pair the ranking of its query: (Q,) queries to (N,) pairs."""
        return Ranking(
            self.ranks[index],
            self.precision[index],
            self.n_right[index],
            self.shortlist[index],
            self.scores[index],
            self.is_right[index],
            None if self.matches is None else self.matches[index],
        )


def rank(
    queries: Tensor, candidates: Tensor, query_ids: Tensor, candidate_ids: Tensor, shortlist: int
) -> Ranking:
    """Rank all candidates for each query by cosine.

    Args:
        queries: (Q, E) unit vectors.
        candidates: (M, E) unit vectors on the same device.
        query_ids: (Q,) which report each query carries.
        candidate_ids: (M,) which report each candidate carries.
        shortlist: How many of the best to keep; fewer where there are fewer candidates.

    Returns:
        The ranking, on the CPU.

    Raises:
        ValueError: If a query has no right candidate.
    """
    rows = max(1, ELEMENTS // len(candidates))
    parts = [
        _rank_some(scores @ candidates.T, ids[:, None] == candidate_ids[None], shortlist)
        for scores, ids in zip(queries.split(rows), query_ids.split(rows), strict=True)
    ]
    return Ranking(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _rank_some(scores: Tensor, is_right: Tensor, shortlist: int) -> tuple[Tensor, ...]:
    n_right = is_right.sum(1)
    if not bool((n_right > 0).all()):
        raise ValueError("a query has no candidate with its id")
    total, most = scores.shape[1], int(n_right.max())
    right = scores.masked_fill(~is_right, -torch.inf)
    wrong = scores.masked_fill(is_right, -torch.inf)
    best_right = right.topk(most, 1)
    ahead = _count_ahead(scores, best_right.values)
    number = torch.arange(1, most + 1, device=scores.device)
    exists = number <= n_right[:, None]
    precision = (number / (ahead + number).double()).masked_fill(~exists, 0.0).sum(1) / n_right

    kept = min(shortlist, total)
    best_wrong = wrong.topk(kept, 1)
    some = min(kept, most)
    values = torch.cat([best_wrong.values, best_right.values[:, :some]], 1)
    places = torch.cat([best_wrong.indices, best_right.indices[:, :some]], 1)
    order = values.sort(dim=1, descending=True, stable=True).indices[
        :, :kept
    ]  # the wrong ones first
    return (
        ahead[:, 0],
        precision,
        n_right,
        places.gather(1, order),
        values.gather(1, order),
        order >= kept,
    )


def _count_ahead(scores: Tensor, best_right: Tensor) -> Tensor:
    """Count, for each of the right candidates, the wrong ones that score at least as well.

    All candidates are put among the right ones, which are few: nothing long is sorted.

    Args:
        scores: (Q, M) cosines.
        best_right: (Q, m) those of the right candidates, best first, -inf where there are fewer.
    """
    rows, most = best_right.shape
    lowest_first = best_right.flip(1).contiguous()
    offset = torch.arange(rows, device=scores.device)[:, None] * (most + 1)

    # In slot s stands what scores at least as well as the s worst right ones.
    slots = torch.searchsorted(lowest_first, scores, right=True) + offset
    own = torch.searchsorted(lowest_first, best_right, right=True) + offset
    size = rows * (most + 1)
    everything = torch.bincount(slots.flatten(), minlength=size)
    right = torch.bincount(own[best_right.isfinite()], minlength=size)
    wrong = (everything - right).view(rows, most + 1)
    return wrong[:, 1:].flip(1).cumsum(1)


def rank_both(images: Tensor, texts: Tensor, report: Tensor, shortlist: int) -> dict[str, Ranking]:
    """Rank distinct reports for each image, and images for each distinct report.

    Args:
        images: (N, E) unit vectors.
        texts: (U, E) unit vectors of the distinct reports.
        report: (N,) which of them each image carries.
        shortlist: How many of the best to keep.
    """
    distinct = torch.arange(len(texts), device=images.device)
    return {
        "image_to_text": rank(images, texts, report, distinct, shortlist),
        "text_to_image": rank(texts, images, distinct, report, shortlist),
    }


def rerank(ranking: Ranking, matches: Tensor) -> Ranking:
    """Put the best candidates into the order of their match probability; the rest stays.

    Args:
        ranking: By cosine.
        matches: (Q, R) match probability of the first R of each shortlist.
    """
    top = matches.shape[1]
    first = ranking.is_right[:, :top]
    order = first.long().sort(dim=1, stable=True).indices  # among equals the wrong ones come first
    order = order.gather(
        1, matches.gather(1, order).sort(dim=1, descending=True, stable=True).indices
    )
    after = first.gather(1, order)

    def reordered(values: Tensor) -> Tensor:
        return torch.cat([values[:, :top].gather(1, order), values[:, top:]], 1)

    # Right ones beyond the first R keep their places and as many right ones before them.
    gain = _precision_within(after) - _precision_within(first)
    return replace(
        ranking,
        ranks=torch.where(after.any(1), after.long().argmax(1), ranking.ranks),
        precision=ranking.precision + gain / ranking.n_right,
        shortlist=reordered(ranking.shortlist),
        scores=reordered(ranking.scores),
        is_right=reordered(ranking.is_right),
        matches=matches.gather(1, order),
    )


def _precision_within(is_right: Tensor) -> Tensor:
    """Sum, over the right ones of (Q, R) places, the share of right ones up to them."""
    place = torch.arange(1, is_right.shape[1] + 1)
    return (is_right * is_right.cumsum(1) / place.double()).sum(1)
