"""How far a run has come: a bar on a terminal, lines in a file."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

DRAWN_EVERY = 0.5
"""Seconds between two drawings of the bar."""


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar on a terminal; a line now and then where output goes to a file."""

    def __init__(self, every_seconds: float = 60.0) -> None:
        super().__init__(refresh_rate=1)
        self.every_seconds = every_seconds
        self._begun = self._said = self._drawn = time.monotonic()
        self._steps = 0
        self._writes_lines = not sys.stdout.isatty()  # where Lightning draws its bar
        if self._writes_lines:
            self.disable()

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what the bar shows beside its progress, without the loggers' version number."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Begin to time the epoch's steps."""
        super().on_train_epoch_start(trainer, *args)
        self._begun, self._steps = time.monotonic(), 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say where the epoch stands, if it is time to."""
        self._steps += 1
        now = time.monotonic()
        # Each drawing reads the loss, for which it waits until the device is done.
        if now - self._drawn >= DRAWN_EVERY or batch_idx + 1 == trainer.num_training_batches:
            self._drawn = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if not (self._writes_lines and trainer.is_global_zero):
            return
        if now - self._said >= self.every_seconds:
            self._said = now
            shown = trainer.progress_bar_metrics.items()
            print(
                f"epoch {trainer.current_epoch + 1:>2}  "
                f"step {batch_idx + 1} of {trainer.num_training_batches}  "
                + "  ".join(f"{name} {value:.3f}" for name, value in shown)
                + f"  {(now - self._begun) / self._steps:.2f} s a step",
                flush=True,
            )
