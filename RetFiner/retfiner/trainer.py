"""Lightning as a run needs it: device, arithmetic, checkpoints, early stopping, logs."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger

from retfiner.checkpoints import WholeCheckpoints
from retfiner.common.devices import resolve_precision
from retfiner.common.errors import InputError
from retfiner.common.stopping import StopSignals
from retfiner.config import RefineConfig
from retfiner.continuing import BestModel, Continuing, Patience
from retfiner.data_wait import DataWait
from retfiner.epoch_means import EpochMeans
from retfiner.logbook import Logbook, MetricsCsv, RunProgress
from retfiner.precision import precision_plugin


def build_trainer(
    config: RefineConfig,
    folder: Path,
    steps_per_epoch: int,
    signals: StopSignals,
) -> pl.Trainer:
    """Set up Lightning: device, arithmetic, checkpoints, early stopping, logs.

    Args:
        config: The settings.
        folder: The run's folder.
        steps_per_epoch: Batches of an epoch.
        signals: What may stop the run.

    Raises:
        InputError: If there is no such device.
    """
    devices = _count_devices(config.devices)
    metrics = MetricsCsv(folder)
    try:
        accelerator = _resolve_accelerator(config.accelerator)
        return pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            plugins=[
                precision_plugin(resolve_precision(config.precision, accelerator), accelerator),
                WholeCheckpoints(),
                *_without_requeueing(),
            ],
            default_root_dir=folder,
            deterministic=config.deterministic or None,
            max_epochs=config.max_epochs,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip_val,
            callbacks=[
                Continuing(folder, config.checkpoint_every_n_steps, signals, metrics),
                EpochMeans(),
                Patience(config.patience),
                LearningRateMonitor("step"),
                BestModel(folder),
                DataWait(),
                Logbook(folder),
                RunProgress(refresh_rate=1),
            ],
            logger=[
                metrics,
                TensorBoardLogger(folder, "", "tensorboard"),
            ],
            num_sanity_val_steps=0,
            log_every_n_steps=min(10, steps_per_epoch),
            enable_model_summary=False,
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            "the device cannot be used as asked",
            got=f"--accelerator {config.accelerator} --devices {config.devices}"
            f" --precision {config.precision}: {error}",
            remedy="leave --accelerator, --devices and --precision at auto",
        ) from error


def _without_requeueing() -> list[SLURMEnvironment]:
    """Under SLURM, keep Lightning from saving in the midst of a step and requeueing by itself.

    It would also begin a new run from any ``hpc_ckpt`` it finds. ``--resume auto`` goes on instead.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _resolve_accelerator(requested: str) -> str:
    if requested == "gpu":
        return "cuda" if torch.cuda.is_available() else "gpu"
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _count_devices(requested: str) -> int:
    if requested in {"auto", "1"}:
        return 1
    raise InputError(
        "--devices cannot be used as asked",
        got=requested,
        expected="auto or 1: a run trains on one device",
    )
