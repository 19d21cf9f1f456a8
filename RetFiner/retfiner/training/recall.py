"""How well images and reports find each other."""

from __future__ import annotations

import math

import torch
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


def chance_recall(report_ids: Tensor) -> dict[str, float]:
    """Return what a random order recalls; identical reports raise it.

    An image's report is one of U distinct ones: k / U. A report with m images among N misses all of
    them in its first k with probability C(N - m, k) / C(N, k).

    Args:
        report_ids: (N,), equal for identical reports.

    Returns:
        The same names as :func:`retrieval_recall`, each in [0, 1].
    """
    _, inverse, counts = report_ids.unique(return_inverse=True, return_counts=True)
    total, images_of_report = len(report_ids), counts[inverse].tolist()
    chance = {f"image_to_text_recall@{k}": min(1.0, k / len(counts)) for k in RECALL_AT}
    for k in RECALL_AT:
        first = min(k, total)
        missed = [math.comb(total - m, first) / math.comb(total, first) for m in images_of_report]
        chance[f"text_to_image_recall@{k}"] = 1 - sum(missed) / total
    return chance


def retrieval_recall(
    image_embeddings: Tensor, text_embeddings: Tensor, report_ids: Tensor
) -> dict[str, float]:
    """Compute recall@k between images and reports, in both directions.

    Identical reports are one report. An image looks for its own among the distinct reports: copies
    of a wrong one would otherwise fill the first places. A report finds any image that carries it.

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
    directions = {
        "image_to_text": best_ranks(images, texts[first], report_ids, ids),
        "text_to_image": best_ranks(texts, images, report_ids, report_ids),
    }
    return {
        f"{name}_recall@{k}": (ranks < k).float().mean().item()
        for name, ranks in directions.items()
        for k in RECALL_AT
    }
