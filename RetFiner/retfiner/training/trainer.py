"""Lightning as a run needs it: device, arithmetic, checkpoints, early stopping, logs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import Logger
from transformers.utils import logging as transformers_logging

from retfiner.common.errors import InputError
from retfiner.data.datamodule import PairsDataModule
from retfiner.training.callbacks.checkpointing import BestCheckpoint, ResumableCheckpoint
from retfiner.training.callbacks.early_stopping import ResumableEarlyStopping
from retfiner.training.callbacks.epoch_means import EpochMeans
from retfiner.training.callbacks.epoch_summary import EpochSummary
from retfiner.training.callbacks.metrics_csv import MetricsCsv
from retfiner.training.callbacks.progress import ProgressBar
from retfiner.training.callbacks.throughput import DataLoadingMonitor
from retfiner.training.checkpoint_io import AtomicCheckpointIO
from retfiner.training.distributed.launch import Hardware
from retfiner.training.loggers import open_runs
from retfiner.training.module import RefinementModule
from retfiner.training.monitor import Monitor
from retfiner.training.precision import precision_plugin
from retfiner.training.stop_signals import StopSignals


def begin(seed: int) -> None:
    """Seed every generator, and keep libraries from talking about themselves.

    Their warnings still come through.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU that has it, also under 32-true
    # Lightning remarks on a folder that we made and on its own use of torch; neither is the user's.
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
    # What processes log is the same in all of them: it was averaged in the step.
    warnings.filterwarnings("ignore", r"It is recommended to use `self.log\(.*sync_dist=True")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")


def build_trainer(
    hardware: Hardware,
    folder: Path,
    signals: StopSignals,
    watching: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
    *,
    monitors: Sequence[Monitor],
    steps_per_epoch: int,
    max_epochs: int,
    patience: int,
    accumulate_grad_batches: int = 1,
    gradient_clip_val: float | None = None,
    checkpoint_every_n_steps: int = 1000,
    image_cache: bool = False,
    can_cache_images: bool = True,
    deterministic: bool = False,
) -> pl.Trainer:
    """Set up Lightning: device, arithmetic, checkpoints, early stopping, logs.

    ``watching`` measure at validation, before other callbacks read what they log; ``loggers`` stand
    beside ``metrics.csv``. The first of ``monitors`` decides what ``best-model.ckpt`` holds and
    when to stop; each other one keeps a checkpoint beside it. What is not named here is named as
    Lightning and ``train.py --help`` do.

    Raises:
        InputError: If there is no such device.
    """
    accelerator = hardware.accelerator
    metrics = MetricsCsv(folder)
    first, *others = monitors
    stopping = [] if first.column is None else [ResumableEarlyStopping(first, patience)]
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            strategy=hardware.lightning_strategy(),
            use_distributed_sampler=False,  # BalancedBatchSampler gives each process its part
            plugins=[
                precision_plugin(hardware.precision, accelerator),
                AtomicCheckpointIO(),
                *_without_requeueing(),
            ],
            default_root_dir=folder,
            deterministic=deterministic or None,
            max_epochs=max_epochs,
            accumulate_grad_batches=accumulate_grad_batches,
            gradient_clip_val=gradient_clip_val,
            callbacks=[
                ResumableCheckpoint(folder, checkpoint_every_n_steps, signals, metrics),
                EpochMeans(),
                *watching,
                *stopping,
                LearningRateMonitor("step"),
                BestCheckpoint(folder, first),
                *(BestCheckpoint(folder, other, other.file) for other in others),
                DataLoadingMonitor(image_cache, can_cache_images),
                EpochSummary(folder, first),
                ProgressBar(),
            ],
            logger=[metrics, *loggers],
            num_sanity_val_steps=0,
            # A validation before training gathers split weights into tensors that training goes on
            # with, and those of inference mode take no gradients.
            inference_mode=False,
            log_every_n_steps=min(10, steps_per_epoch),
            enable_model_summary=False,
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            "the device cannot be used as asked",
            got=f"--accelerator {accelerator} --devices {hardware.devices}"
            f" --precision {hardware.precision}: {error}",
            remedy="leave --accelerator, --devices and --precision at auto",
        ) from error


def train(
    trainer: pl.Trainer,
    module: RefinementModule,
    batches: PairsDataModule,
    resumed: Path | None,
    compile: bool = False,
) -> None:
    """Validate, then train; or go on training.

    Args:
        trainer: What :func:`build_trainer` returned.
        module: The model with its losses and optimiser.
        batches: The data.
        resumed: The checkpoint to go on from.
        compile: Whether to compile the encoders.
    """
    if compile:
        module.model.compile_encoders()
    with open_runs(trainer.loggers, module.description["settings"]):
        if resumed is None:
            trainer.validate(module, batches, verbose=False)
        trainer.fit(module, batches, ckpt_path=resumed, weights_only=True)


def run_facts(trainer: pl.Trainer, module: RefinementModule) -> dict[str, Any]:
    """Return what else shaped a run's numbers, to stand below its settings."""
    about = ("backbone", "image_size", "provenance", "train_pairs", "validation_pairs", "versions")
    return {name: module.description[name] for name in about} | {
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _without_requeueing() -> list[SLURMEnvironment]:
    """Under SLURM, keep Lightning from saving in the midst of a step and requeueing by itself.

    It would also begin a new run from any ``hpc_ckpt`` it finds. ``--resume auto`` goes on instead.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []  # torchrun within SLURM: torchrun knows which process this is
    return [SLURMEnvironment(auto_requeue=False)]
