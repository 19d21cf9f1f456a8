"""How much of an epoch training waits for images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

TOO_MUCH = 0.05
"""Share of an epoch from which waiting is worth a word."""


class DataLoadingMonitor(pl.Callback):
    """Measure the share of each epoch spent between steps, and say once what helps.

    It is said and not logged: ``metrics.csv`` holds what a seed repeats, and time is not of that.
    A step ends when its loss is known (the check that it is finite waits for the device), so what
    passes until the next one begins is time in which the device has nothing to do.

    Args:
        is_cached: Whether images are decoded once a run; the epoch that does so is let pass.
        clock: Gives the time in seconds.

    Attributes:
        share: Of the last epoch.
    """

    def __init__(
        self, is_cached: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.is_cached, self.clock = is_cached, clock
        self.fills_cache = is_cached
        self.waited = self.begun = self.ended = 0.0
        self.share = 0.0
        self.advised = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self.waited, self.begun = 0.0, self.clock()
        self.ended = self.begun

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count what passed since the last step."""
        if batch_idx > 0:  # before the first, workers start: once an epoch, however long it is
            self.waited += self.clock() - self.ended
        else:
            self.begun = self.clock()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note when a step ended."""
        self.ended = self.clock()
        if batch_idx + 1 == trainer.num_training_batches:
            self.share = self.waited / max(self.ended - self.begun, 1e-9)
            is_told = self.advised or self.fills_cache
            self.fills_cache = False
            if self.share > TOO_MUCH and batch_idx > 0 and not is_told:
                self.advised = True
                if trainer.is_global_zero:
                    tqdm.write(advice(self.share, self.is_cached))


def advice(share: float, is_cached: bool) -> str:
    """Say what helps against waiting."""
    remedy = "more processes with --num_workers"
    if not is_cached:
        remedy = f"--image_cache, or {remedy},"
    return f"note: {100 * share:.0f} % of the epoch waited for images; {remedy} would shorten it"
