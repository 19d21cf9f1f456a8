"""What watches over a training: early stopping by validation, and the learning curve."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from linprobe.probes.kinds import CRITERION, LOSS
from retfiner.common.errors import InputError
from retfiner.common.metrics import compute_metric

CURVE = ("epoch", "learning_rate", "train_loss")


@dataclass
class Watch:
    """Early stopping of one training: judges each epoch by validation, and keeps the curve.

    ``rate`` is the flag of the learning rate, for the error of a training that diverges. The first
    ``start`` epochs can be the best but are not waited for.
    """

    rate: str
    patience: int
    kind: str = "classes"
    start: int = 0
    min_delta: float = 1e-3
    best_epoch: int = 0
    score: float = -math.inf
    loss: float = math.inf
    waited: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    def is_best(
        self, rate: float, train_loss: float, scores: np.ndarray, labels: np.ndarray
    ) -> bool:
        """Take an epoch's validation into account: (N, C) outputs and (N,) labels, or (N, C).

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
        names = (LOSS[self.kind], CRITERION[self.kind])
        loss, score = (compute_metric(name, scores, labels, self.kind) for name in names)
        values = (epoch, rate, train_loss, loss, score)
        columns = (*CURVE, *(f"val_{name}" for name in names))
        self.curve.append(dict(zip(columns, values, strict=True)))
        return self.advance(epoch, score, loss)

    def advance(self, epoch: int, score: float, loss: float) -> bool:
        """Say whether an epoch (from 1) is the best so far.

        Better is a score higher by more than ``min_delta`` or, on a tie (the same score), a loss
        lower by more than ``min_delta``. A score that does not exist (NaN: an AUROC of validation
        images that all have the same labels) is the lowest there is, so that the loss decides.
        """
        score = -math.inf if math.isnan(score) else score
        is_tie = math.isclose(score, self.score, rel_tol=0.0, abs_tol=1e-9)
        better = score > self.score + self.min_delta
        if better or (is_tie and loss < self.loss - self.min_delta):
            self.best_epoch, self.score, self.loss, self.waited = epoch, score, loss, 0
            return True
        self.waited += epoch > self.start
        return False

    @property
    def is_over(self) -> bool:
        """Whether it was waited long enough for a better epoch."""
        return self.waited >= self.patience

    @property
    def context(self) -> dict[str, Any]:
        """What was found, for the record of a run."""
        by = LOSS[self.kind] if self.score == -math.inf else CRITERION[self.kind]
        return {"best_epoch": self.best_epoch, "epochs_trained": len(self.curve),
                "epoch_chosen_by": f"validation {by}"}  # fmt: skip
