"""When last.ckpt is written, and what Lightning leaves out of it that going on to the bit needs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from retfiner.common.errors import Stopped
from retfiner.training.callbacks.metrics_csv import MetricsCsv, rewrite_tensorboard
from retfiner.training.distributed.collectives import all_gather_objects, any_process
from retfiner.training.distributed.launch import rank_zero_print
from retfiner.training.monitor import Monitor
from retfiner.training.rng_states import collect_rng_states, restore_rng_states
from retfiner.training.stop_signals import StopSignals

KEY = "continuing"
"""Entry of a checkpoint that holds what this module adds."""


class ResumableCheckpoint(pl.Callback):
    """Write ``last.ckpt`` between two steps, and stop there when a signal asks for it.

    Lightning writes checkpoints in the middle of its bookkeeping of a step: the step's row of
    ``metrics.csv`` is not there yet, nor is it counted. Here a checkpoint is written where a step,
    an epoch or the run is over and the next one has not begun, and its counters say so. A signal
    during validation is answered too: the run then goes on with that validation.

    It must stand before other callbacks, so that none has begun the step.

    Attributes:
        finished: Whether the run that a checkpoint belongs to has ended by itself.
    """

    def __init__(
        self, folder: Path, every_n_steps: int, signals: StopSignals, metrics: MetricsCsv
    ) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.signals = signals
        self.metrics = metrics
        self.finished = False
        self._place = "epoch"
        self._saved_step = -1
        self._random: dict[str, Any] | None = None  # before the next batch is fetched
        self._restored: list[dict[str, Any]] = []
        self._asked: Callable[[], bool] | None = None

    # -- going on ----------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Learn from the first process where the run lies."""
        self.path = trainer.strategy.broadcast(self.path)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put back what was logged; random states follow where training starts."""
        own = checkpoint[KEY]
        self._restored = own["random"]
        self._saved_step = checkpoint["global_step"]
        self.metrics.restore(own["metrics_csv"])
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                rewrite_tensorboard(logger, own["metrics_csv"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer signals, and set the random states before the first batch is fetched.

        Lightning has put a handler of its own in place by now, which sends a word to the other
        processes from wherever the signal finds it: they would take it for a gradient.
        """
        self.signals.take()
        self._set_random(trainer)

    def _set_random(self, trainer: pl.Trainer) -> None:
        if trainer.global_rank < len(self._restored):
            restore_rng_states(self._restored[trainer.global_rank], trainer.strategy.root_device)
            self._random = self._restored[trainer.global_rank]

    # -- places where a checkpoint is whole --------------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint of the epoch that is over."""
        if self._restored and trainer.world_size > 1:
            self._set_random(trainer)  # the module seeds each process at the start
        self._restored = []
        self._random = collect_rng_states(trainer.strategy.root_device)
        if trainer.global_step not in (0, self._saved_step):
            self._save(trainer, "epoch")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint of the steps before this one, if it is due or the run shall stop."""
        if self._restored:
            if trainer.world_size > 1:
                self._set_random(trainer)
            self._restored = []
        if batch_idx % trainer.accumulate_grad_batches != 0:
            return  # gradients of half a step are in no checkpoint
        place = "batch" if batch_idx > 0 else "epoch"
        is_due = trainer.global_step % self.every_n_steps == 0 and batch_idx > 0
        if self._is_told_to_stop(trainer):
            self._save(trainer, place)
            self._stop(trainer)
        if is_due and trainer.global_step != self._saved_step:
            self._save(trainer, place)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the random states: fetching the next batch may draw from them."""
        self._random = collect_rng_states(trainer.strategy.root_device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer signals during the validation before training as well."""
        self.signals.take()

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop here if the run shall stop: weights stand still, so nothing is lost."""
        if self._is_told_to_stop(trainer):
            if trainer.state.fn == "fit":
                self._save(trainer, "validation")
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last checkpoint, which says that the run is finished."""
        self.finished = True
        self._random = collect_rng_states(trainer.strategy.root_device)
        self._save(trainer, "epoch")

    def _save(self, trainer: pl.Trainer, place: str) -> None:
        self._place = place
        trainer.save_checkpoint(self.path)
        self._saved_step = trainer.global_step

    def _is_told_to_stop(self, trainer: pl.Trainer) -> bool:
        received = self.signals.received != 0
        if trainer.world_size == 1:
            return received
        # All at the same step, also when one alone was told: the answer is that to the question
        # asked a batch ago, so that no batch waits for it.
        before, self._asked = self._asked, any_process(received)
        return before is not None and before()

    def _stop(self, trainer: pl.Trainer) -> None:
        number = self.signals.received or int(signal.SIGTERM)
        name = signal.Signals(number).name
        if not self.path.is_file():
            raise Stopped(number, f"stopped by {name} before the first step; nothing to save yet")
        folder = self.path.parent
        raise Stopped(
            number,
            f"stopped by {name}; saved at step {trainer.global_step}\n"
            f"to go on: python train.py --config {folder / 'config.yaml'} --resume {folder}",
        )

    # -- what a checkpoint holds -------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out, and let its counters say that nothing is half done."""
        own = self._random or collect_rng_states(trainer.strategy.root_device)
        checkpoint[KEY] = {
            "random": _gather(own, trainer.world_size),
            "metrics_csv": self.metrics.text(),
            "finished": self.finished,
        }
        loop = checkpoint["loops"]["fit_loop"]
        done = rewind_progress(loop, self._place)
        # Lightning keeps the loader's place twice; one batch more has been fetched than is done.
        loaders = loop["state_dict"].get("combined_loader", [])
        for place in (*loaders, *checkpoint.values()):
            if isinstance(place, dict) and "batches_given" in place:
                place["batches_given"] = done


def rewind_progress(loop: dict[str, Any], place: str) -> int:
    """Let Lightning's counters say that what was begun last has not begun.

    Args:
        loop: The state of its fit loop; changed in place.
        place: ``batch``: between two steps; ``epoch``: between two epochs; ``validation``: after
            the last step of an epoch, its validation not done.

    Returns:
        How many batches of the epoch are done; 0 between epochs.
    """
    batches = loop["epoch_loop.batch_progress"]
    validation = loop["epoch_loop.val_loop.batch_progress"]
    # An interrupted first batch is the one case in which Lightning validates before it trains.
    begun = int(place == "validation")
    for counter in ("total", "current"):
        done = batches[counter]
        done["ready"] = done["started"] = done["completed"]
        validation[counter].update(ready=begun, started=begun, processed=0, completed=0)
    validation["is_last_batch"] = False
    if place == "batch":
        batches["is_last_batch"] = False
        return int(batches["current"]["completed"])
    if place == "epoch":
        for counter in ("total", "current"):
            done = loop["epoch_progress"][counter]
            done["ready"] = done["started"] = done["completed"]
    return 0


def _gather(state: dict[str, Any], processes: int) -> list[dict[str, Any]]:
    """Return the random states of all processes, by rank."""
    if processes == 1:
        return [state]
    states: list[Any] = [None] * processes
    torch.distributed.all_gather_object(states, state)
    return states


class BestCheckpoint(ModelCheckpoint):
    """Keep the weights of the epoch that a metric finds best, also in a moved folder.

    Args:
        folder: The run's folder.
        monitor: The metric.
        filename: Name of the checkpoint without its ending.
    """

    def __init__(self, folder: Path, monitor: Monitor, filename: str = "best-model") -> None:
        super().__init__(
            dirpath=folder,
            filename=filename,
            monitor=monitor.column,
            mode=monitor.mode,
            save_weights_only=True,  # nothing resumes from it; optimiser states are two thirds
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best epoch so far, wherever the folder lay then.

        Where its weights are gone, no later epoch may be better: the best of those is kept.
        """
        path = str(Path(str(self.dirpath)) / f"{self.filename}.ckpt")
        # As the first process sees it: another machine need not have the folder.
        is_there = all_gather_objects(Path(path).is_file())[0]
        if state_dict["best_model_path"] and not is_there:
            rank_zero_print(f"note: {path} is gone; the best of the epochs to come is kept instead")
            return
        here = dict(state_dict, dirpath=self.dirpath)
        for name in ("best_model_path", "kth_best_model_path"):
            here[name] = path if state_dict[name] else ""
        here["best_k_models"] = dict.fromkeys([path], *state_dict["best_k_models"].values())
        if not state_dict["best_k_models"]:
            here["best_k_models"] = {}
        super().load_state_dict(here)
