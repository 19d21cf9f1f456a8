"""Image-text matching: the best by cosine are read together with the query, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.evaluation.embedding import ImageStream, Subjects
from retfiner.evaluation.retrieval.ranking import Ranking, rerank


def rerank_by_matching(
    stream: ImageStream,
    rankings: Mapping[str, Ranking],
    images: Subjects,
    texts: Sequence[str],
    top: int,
    shown: NDArray[np.int64],
) -> dict[str, Ranking]:
    """Put the first ``top`` of each query in the order of their match probability.

    ``images`` are those of all pairs, of which the ``shown`` ones are candidates.

    Raises:
        InputError: If an image can be read no longer, or a probability is not finite.
    """
    pairs: dict[str, NDArray[np.int64]] = {}
    for direction, ranking in rankings.items():
        candidate = ranking.shortlist[:, :top].numpy()
        query = np.arange(len(candidate))[:, None]
        image, text = query, candidate
        if direction == "text_to_image":
            image, text = shown[candidate], query
        pairs[direction] = image * len(texts) + text  # one number a pair
    distinct = np.unique(np.concatenate([numbers.ravel() for numbers in pairs.values()]))
    positions = np.stack([distinct // len(texts), distinct % len(texts)], 1)
    probabilities = match_probabilities(stream, images, texts, positions)
    return {
        direction: rerank(
            rankings[direction],
            torch.from_numpy(probabilities[np.searchsorted(distinct, numbers)]),
        )
        for direction, numbers in pairs.items()
    }


@torch.no_grad()
def match_probabilities(
    stream: ImageStream,
    subjects: Subjects,
    texts: Sequence[str],
    pairs: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Score pairs of an image, or exam, and a text by ITM; each image is read and encoded once.

    ``pairs`` (P, 2) are positions of image and text, without repetition, by image.

    Returns:
        (P,) match probabilities.

    Raises:
        InputError: If an image cannot be read, or a probability is not finite.
    """
    images, starts = np.unique(pairs[:, 0], return_index=True)
    texts_of = dict(zip(images.tolist(), np.split(pairs[:, 1], starts[1:]), strict=True))
    loaded, found = stream.loaded, []
    for batch in stream.batches(subjects, "matching", images.tolist()):
        if batch.unreadable:
            reason = next(iter(batch.unreadable.values()))
            raise InputError(f"an image can no longer be read: {reason}")
        with loaded.autocast():
            tokens, mask = loaded.encode(batch.images, batch.groups)
            for row, position in enumerate(batch.positions):
                wanted = [texts[text] for text in texts_of[position]]
                own = None if mask is None else mask[row : row + 1]
                found.append(loaded.match(tokens[row : row + 1], wanted, own).numpy())
    probabilities = np.concatenate(found)
    if not np.isfinite(probabilities).all():
        raise InputError("a match probability is not finite", remedy="--precision 32-true")
    return probabilities
