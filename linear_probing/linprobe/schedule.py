"""The protocol's learning rate, batch size, early stopping and number of views: pure functions."""

from __future__ import annotations

import math
from typing import NamedTuple


def learning_rate_at(
    epoch: float, *, peak: float, lowest: float, warmup: int, epochs: int
) -> float:
    """Give the learning rate: linear warm-up from 0, then a half-cosine down to the lowest.

    ``epoch`` counts those done so far, with the current one's fraction; of ``epochs`` in all,
    ``warmup`` are warm-up.
    """
    if epoch < warmup:
        return peak * epoch / warmup
    done = (epoch - warmup) / (epochs - warmup)
    return lowest + (peak - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))


def batch_size_of(n_images: int, largest: int = 64, share: float = 0.25) -> int:
    """Give the largest power of two <= ``share`` of the images, at most ``largest``, at least 1."""
    allowed = max(1, math.floor(share * n_images))
    return max(1, min(largest, 1 << (allowed.bit_length() - 1), n_images))


def views_of(n_images: int, wanted: int = 8192, least: int = 2, most: int = 8) -> int:
    """Give the number of stored views a training image: ``wanted`` pictures in all, within bounds.

    More than eight change nothing beyond noise on the features of trained backbones, and cost most
    of the time: docs/probing_and_data_sets.md has the measurements.
    """
    return min(most, max(least, math.ceil(wanted / n_images)))


class Progress(NamedTuple):
    """Where early stopping stands: the best epoch (from 1), its validation, epochs waited since."""

    best_epoch: int = 0
    score: float = -math.inf
    loss: float = math.inf
    waited: int = 0


def advance(
    progress: Progress, epoch: int, score: float, loss: float, *, min_delta: float, start: int
) -> Progress:
    """Take an epoch's validation balanced accuracy and loss into account.

    Better is a balanced accuracy higher by more than ``min_delta`` or, on a tie (the same balanced
    accuracy), a loss lower by more than ``min_delta``. The first ``start`` epochs can be the best
    but are not waited for. ``best_epoch == epoch`` where this one is the best so far.
    """
    is_tie = math.isclose(score, progress.score, rel_tol=0.0, abs_tol=1e-9)
    if score > progress.score + min_delta or (is_tie and loss < progress.loss - min_delta):
        return Progress(epoch, score, loss, 0)
    return progress._replace(waited=progress.waited + (epoch > start))
