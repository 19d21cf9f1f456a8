"""Who finds whom: ranks, average precision and shortlists, in memory that the pairs do not square.

The convention is that of :mod:`retfiner.training.recall`: identical reports are one report, and
identical images one image. An image looks for one of its own among the distinct reports; a report
finds any image that carries it. A wrong candidate that scores the same as a right one is placed
before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retfiner.training.recall import Pairing

ELEMENTS = 250_000
"""Scores that are held at a time; bounds memory, never changes a value."""


@dataclass(frozen=True)
class Ranking:
    """What Q queries find among M candidates; all on the CPU.

    Attributes:
        ranks: (Q,) place of the first right candidate, 0 for the first.
        precision: (Q,) average precision, float64.
        n_right: (Q,) number of right candidates.
        shortlist: (Q, K) the best candidates, best first.
        scores: (Q, K) their cosines.
        is_right: (Q, K) which of them are right.
    """

    ranks: Tensor
    precision: Tensor
    n_right: Tensor
    shortlist: Tensor
    scores: Tensor
    is_right: Tensor


def rank(
    queries: Tensor, candidates: Tensor, right: Callable[[Tensor], Tensor], shortlist: int
) -> Ranking:
    """Rank all candidates for each query by cosine, and keep the ``shortlist`` best of them.

    Queries (Q, E) and candidates (M, E) are unit vectors on one device; ``right`` says of some
    queries, by their places (P,), which candidates are right for each: (P, M).

    Raises:
        ValueError: If a query has no right candidate.
    """
    rows = max(1, ELEMENTS // len(candidates))
    columns: list[Tensor] = []
    parts = zip(queries.split(rows), torch.arange(len(queries)).split(rows), strict=True)
    for number, (some, places) in enumerate(parts):
        scores, is_right = (some @ candidates.T).cpu(), right(places)
        n_right = is_right.sum(1)
        if not bool((n_right > 0).all()):
            raise ValueError("a query has no right candidate")
        keys = wrong_first(scores, is_right)
        first = keys.topk(min(shortlist, len(candidates))).indices
        # numpy sorts values alone, in half the time in which torch sorts them with their places.
        ordered = torch.from_numpy(np.sort(keys)).flip(1)
        in_order = ordered != ordered.float()  # which of them were put below a cosine
        found = (
            in_order.byte().argmax(1),
            summed_precision(in_order) / n_right,
            n_right,
            first,
            scores.gather(1, first),
            is_right.gather(1, first),
        )
        # In one place from the start: between large arrays, small parts would hold their memory.
        columns = columns or [part.new_empty(len(queries), *part.shape[1:]) for part in found]
        for column, part in zip(columns, found, strict=True):
            column[number * rows :][: len(part)] = part
    return Ranking(*columns)


def rank_both(images: Tensor, texts: Tensor, pairs: Pairing, shortlist: int) -> dict[str, Ranking]:
    """Rank U distinct reports for the image of each pair, and V distinct images for each report.

    ``images`` (N, E), of each of the ``pairs``, and ``texts`` (U, E) are unit vectors.
    """
    return {
        "image_to_text": rank(images, texts, pairs.reports_of, shortlist),
        "text_to_image": rank(
            texts, images[pairs.images.to(images.device)], pairs.images_of, shortlist
        ),
    }


def rerank(ranking: Ranking, matches: Tensor) -> Ranking:
    """Put the first R of each shortlist into the order of their match probability (Q, R)."""
    top = matches.shape[1]
    before = ranking.is_right[:, :top]
    order = wrong_first(matches, before).argsort(dim=1, descending=True, stable=True)
    after = before.gather(1, order)

    def reordered(values: Tensor) -> Tensor:
        return torch.cat([values[:, :top].gather(1, order), values[:, top:]], 1)

    # Right ones beyond the first R keep their places and as many right ones before them.
    gain = summed_precision(after) - summed_precision(before)
    return dataclasses.replace(
        ranking,
        ranks=torch.where(after.any(1), after.byte().argmax(1), ranking.ranks),
        precision=ranking.precision + gain / ranking.n_right,
        shortlist=reordered(ranking.shortlist),
        scores=reordered(ranking.scores),
        is_right=reordered(ranking.is_right),
    )


def wrong_first(scores: Tensor, is_right: Tensor) -> Tensor:
    """Put right candidates just below their score, where wrong ones with the same come first.

    A float64 has room there, below the score itself and above every other float32.
    """
    exact = scores.double()
    return torch.where(is_right, exact.nextafter(exact.new_tensor(-torch.inf)), exact)


def summed_precision(is_right: Tensor) -> Tensor:
    """Sum, over the right ones of (Q, R) places, the share of right ones up to them: (Q,)."""
    place = torch.arange(1, is_right.shape[1] + 1, device=is_right.device)
    return (is_right * is_right.cumsum(1) / place.double()).sum(1)
