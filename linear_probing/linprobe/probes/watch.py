"""What watches over a training: early stopping by validation, and the learning curve."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from linprobe.probes.kinds import CRITERION, LOSS
from linprobe.schedule import Progress, advance
from retfiner.common.errors import InputError
from retfiner.common.metrics import compute_metric

CURVE = ("epoch", "learning_rate", "train_loss")


@dataclass
class Watch:
    """Early stopping of one training: judges each epoch by validation, and keeps the curve.

    ``rate`` is the flag of the learning rate, for the error of a training that diverges.
    """

    rate: str
    patience: int
    kind: str = "classes"
    start: int = 0
    min_delta: float = 1e-3
    progress: Progress = field(default_factory=Progress)
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
