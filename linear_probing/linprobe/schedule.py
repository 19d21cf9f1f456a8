"""The protocol's learning rate, batch size, early stopping and number of views: pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass


def learning_rate_at(
    epoch: float, *, peak: float, lowest: float, warmup: int, epochs: int
) -> float:
    """Give the learning rate: linear warm-up from 0, then a half-cosine down to the lowest.

    Args:
        epoch: Epochs done so far, with the current one's fraction; set anew at each iteration.
        peak: Learning rate at the end of the warm-up.
        lowest: Learning rate at the last epoch.
        warmup: Epochs of warm-up.
        epochs: Epochs in all, warm-up included.
    """
    if epoch < warmup:
        return peak * epoch / warmup
    done = (epoch - warmup) / (epochs - warmup)
    return lowest + (peak - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))


def batch_size_of(n_images: int, largest: int = 64, share: float = 0.25) -> int:
    """Give the batch size: min(``largest``, the largest power of two <= ``share`` of the images).

    Args:
        n_images: Number of training images.
        largest: Never more than this.
        share: Share of the training images.

    Returns:
        At least 1, and never more than there are images.
    """
    allowed = math.floor(share * n_images)
    power = 1 << (allowed.bit_length() - 1) if allowed >= 1 else 1
    return max(1, min(largest, power, n_images))


def views_of(n_images: int, wanted: int = 8192, least: int = 2, most: int = 8) -> int:
    """Give the number of stored views a training image: many for few images, few for many.

    More than eight change nothing beyond the noise of a small test set on the features of trained
    backbones, and cost most of the time: ``benchmarks/probe_sweep.py`` gives the measurements.

    Args:
        n_images: Number of training images.
        wanted: Pictures in all.
        least: Never fewer views.
        most: Never more views.
    """
    return min(most, max(least, math.ceil(wanted / n_images)))


@dataclass(frozen=True)
class Progress:
    """Where early stopping stands.

    Attributes:
        best_epoch: Epoch, from 1, with the best validation so far.
        score: Its balanced accuracy.
        loss: Its loss.
        waited: Epochs without a better one that count.
    """

    best_epoch: int = 0
    score: float = -math.inf
    loss: float = math.inf
    waited: int = 0


def advance(
    progress: Progress, epoch: int, score: float, loss: float, *, min_delta: float, start: int
) -> Progress:
    """Take an epoch's validation into account.

    Better is a balanced accuracy higher by more than ``min_delta`` or, on a tie (the same balanced
    accuracy), a loss lower by more than ``min_delta``. The first ``start`` epochs can be the best
    but are not waited for.

    Args:
        progress: Before the epoch.
        epoch: Its number, from 1.
        score: Validation balanced accuracy.
        loss: Validation loss.
        min_delta: What counts as better.
        start: Epochs before waiting starts to count.

    Returns:
        The state after it; ``best_epoch == epoch`` where it is the best so far.
    """
    is_tie = math.isclose(score, progress.score, rel_tol=0.0, abs_tol=1e-9)
    is_better = score > progress.score + min_delta or (is_tie and loss < progress.loss - min_delta)
    if is_better:
        return Progress(epoch, score, loss, 0)
    waited = progress.waited + (epoch > start)
    return Progress(progress.best_epoch, progress.score, progress.loss, waited)
