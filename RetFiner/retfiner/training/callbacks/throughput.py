"""How much of an epoch training waits for images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

TOO_MUCH = 0.05
"""Share of an epoch from which waiting is worth a word."""


class DataLoadingMonitor(pl.Callback):
    """Measure the share of each epoch spent between steps, and say once what helps.

    It is said and not logged: ``metrics.csv`` holds what a seed repeats, and time is not of that.
    On a GPU the time is the GPU's own, which marks where it came to the end of a step's work and to
    the beginning of the next: what passes in between is time in which it has nothing to do. It is
    read once an epoch, so that no step waits.

    Args:
        is_cached: Whether images are decoded once a run; the epoch that does so is let pass.
        can_cache: Whether they could be, by ``--image_cache``.
        clock: Gives the time in seconds.

    Attributes:
        share: Of the last epoch.
    """

    def __init__(
        self,
        is_cached: bool = False,
        can_cache: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.advises_cache = can_cache and not is_cached
        self.clock = clock
        self.fills_cache = is_cached
        self.marks: list[Any] = []
        self.share = 0.0
        self.advised = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self.marks = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note when a step begins."""
        self.marks.append(self._mark(trainer))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note when a step ended; after the last, say what the epoch waited."""
        self.marks.append(self._mark(trainer))
        if batch_idx + 1 == trainer.num_training_batches:
            # Before the first step workers start: once an epoch, however long it is.
            gaps = zip(self.marks[1::2], self.marks[2::2], strict=False)
            waited = sum(_between(ended, begun) for ended, begun in gaps)
            self.share = waited / max(_between(self.marks[0], self.marks[-1]), 1e-9)
            is_told = self.advised or self.fills_cache
            self.fills_cache = False
            if self.share > TOO_MUCH and batch_idx > 0 and not is_told:
                self.advised = True
                if trainer.is_global_zero:
                    tqdm.write(advice(self.share, self.advises_cache))

    def _mark(self, trainer: pl.Trainer) -> Any:
        if trainer.strategy.root_device.type != "cuda":
            return self.clock()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark


def _between(one: Any, other: Any) -> float:
    """Return the seconds from one mark to another."""
    if isinstance(one, float):
        return float(other - one)
    other.synchronize()
    return float(one.elapsed_time(other)) / 1000


def advice(share: float, with_cache: bool) -> str:
    """Say what helps against waiting, a cache included where there can be one."""
    remedy = "more processes with --num_workers"
    if with_cache:
        remedy = f"--image_cache, or {remedy},"
    return f"note: {100 * share:.0f} % of the epoch waited for images; {remedy} would shorten it"
