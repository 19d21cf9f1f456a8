"""The protocol's learning rate, batch size, early stopping and number of views."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from retfiner.common.errors import InputError
from retfiner.common.metrics import compute_metric

CURVE = ("epoch", "learning_rate", "train_loss", "val_loss", "val_balanced_accuracy")
MIN_DELTA = 1e-3
"""What counts as better, in balanced accuracy and, on a tie, in loss."""


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


@dataclass
class Watch:
    """Early stopping of one training: judges each epoch by validation, and keeps the curve.

    ``rate`` is the flag of the learning rate, for the error of a training that diverges.
    """

    rate: str
    patience: int
    start: int = 0
    min_delta: float = MIN_DELTA
    progress: Progress = field(default_factory=Progress)
    curve: list[dict[str, float]] = field(default_factory=list)

    def is_best(
        self, rate: float, train_loss: float, scores: np.ndarray, labels: np.ndarray
    ) -> bool:
        """Take an epoch's validation into account: (N, C) probabilities and (N,) labels.

        Raises:
            InputError: If they are not finite.
        """
        if not np.isfinite(scores).all():
            raise InputError(
                "The training of the probe diverged",
                got="weights that are not finite",
                remedy=f"lower {self.rate}",
            )
        epoch = len(self.curve) + 1
        loss, score = (compute_metric(n, scores, labels) for n in ("loss", "balanced_accuracy"))
        values = (epoch, rate, train_loss, loss, score)
        self.curve.append(dict(zip(CURVE, values, strict=True)))
        self.progress = advance(
            self.progress, epoch, score, loss, min_delta=self.min_delta, start=self.start
        )
        return self.progress.best_epoch == epoch

    @property
    def is_over(self) -> bool:
        """Whether it was waited long enough for a better epoch."""
        return self.progress.waited >= self.patience

    @property
    def context(self) -> dict[str, Any]:
        """What was found, for the record of a run."""
        return {"best_epoch": self.progress.best_epoch, "epochs_trained": len(self.curve)}
