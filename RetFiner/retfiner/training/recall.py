"""How well images and reports find each other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALL_AT = (1, 5, 10)


def best_ranks(
    queries: Tensor, candidates: Tensor, query_ids: Tensor, candidate_ids: Tensor, chunk: int = 1024
) -> Tensor:
    """Rank the candidates of each query by cosine and return the rank of the first right one.

    A candidate is right if it carries the query's id, so that every image with the identical report
    counts. Candidates that score the same as the first right one are ranked before it, and so are
    all of them where scores are not numbers: a model that tells nothing apart finds nothing.

    Args:
        queries: (N, E) unit vectors.
        candidates: (M, E) unit vectors.
        query_ids: (N,) which report each query carries.
        candidate_ids: (M,) which report each candidate carries.
        chunk: Queries compared at a time; memory is chunk x M.

    Returns:
        (N,) int64 ranks, 0 for the first place.

    Raises:
        ValueError: If a query has no right candidate.
    """
    ranks = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ candidates.T
        is_right = query_ids[start : start + chunk, None] == candidate_ids[None, :]
        if not is_right.any(1).all():
            raise ValueError("a query has no candidate with its id")
        best = scores.masked_fill(~is_right, -torch.inf).amax(1, keepdim=True)
        ranks.append((~(scores < best) & ~is_right).sum(1))
    return torch.cat(ranks)


def chance_recall_at(k: int, total: int, n_right: NDArray[np.int64]) -> float:
    """Return the mean chance that a right candidate is among the first k of a random order.

    Args:
        k: Places looked at.
        total: Number of candidates.
        n_right: (Q,) number of right candidates of each query.
    """
    distinct, queries = np.unique(n_right, return_counts=True)
    missed = [_chance_of_none(min(k, total), int(n), total) for n in distinct]
    return float(1 - np.average(missed, weights=queries))


def _chance_of_none(drawn: int, right: int, total: int) -> float:
    """Return the chance that none is right, as SciPy's hypergeom; training does not wait for it."""
    few, many = sorted((drawn, right))
    places = np.arange(few)
    return float(np.prod(np.maximum(total - many - places, 0) / (total - places)))


def chance_recall(report_ids: Tensor) -> dict[str, float]:
    """Return what a random order recalls; identical reports raise it.

    Args:
        report_ids: (N,), equal for identical reports.

    Returns:
        The same names as :func:`retrieval_recall`, each in [0, 1].
    """
    counts = report_ids.unique(return_counts=True)[1].cpu().numpy()
    directions = {
        "image_to_text": (len(counts), np.ones(1, np.int64)),
        "text_to_image": (len(report_ids), counts),
    }
    return {
        f"{name}_recall@{k}": chance_recall_at(k, total, n_right)
        for name, (total, n_right) in directions.items()
        for k in RECALL_AT
    }


def retrieval_recall(
    image_embeddings: Tensor, text_embeddings: Tensor, report_ids: Tensor
) -> dict[str, float]:
    """Compute recall@k between images and reports, in both directions.

    Identical reports are one report, as a query and as a candidate: copies are found or missed
    together and would count one answer many times, and copies of a wrong one would fill the first
    places. Each image looks for its own among the distinct reports, each distinct report for any
    image that carries it. Images that share a report count as one query together: a model that puts
    the commonest reports first, whatever the image shows, has what chance gives.

    Args:
        image_embeddings: (N, E) unit vectors.
        text_embeddings: (N, E) unit vectors.
        report_ids: (N,), equal for identical reports.

    Returns:
        ``image_to_text_recall@k`` and ``text_to_image_recall@k`` for k in 1, 5, 10, each in [0, 1].
    """
    images, texts = image_embeddings.float(), text_embeddings.float()
    ids, inverse = report_ids.unique(return_inverse=True)
    place = torch.arange(len(inverse), device=inverse.device)
    first = torch.full_like(ids, len(inverse)).scatter_reduce(0, inverse, place, "amin")
    shares = 1 / torch.bincount(inverse)[inverse]
    directions = {
        "image_to_text": (best_ranks(images, texts[first], report_ids, ids), shares),
        "text_to_image": (best_ranks(texts[first], images, ids, report_ids), torch.ones_like(ids)),
    }
    return {
        f"{name}_recall@{k}": (((ranks < k) * weights).sum() / weights.sum()).item()
        for name, (ranks, weights) in directions.items()
        for k in RECALL_AT
    }
