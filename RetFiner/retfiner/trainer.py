"""Lightning as a run needs it: device, arithmetic, checkpoints, early stopping, logs."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
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
from retfiner.launch import Placement
from retfiner.logbook import Logbook, MetricsCsv
from retfiner.precision import precision_plugin
from retfiner.progress import RunProgress


def build_trainer(
    config: RefineConfig,
    placement: Placement,
    folder: Path,
    steps_per_epoch: int,
    signals: StopSignals,
) -> pl.Trainer:
    """Set up Lightning: device, arithmetic, checkpoints, early stopping, logs.

    Args:
        config: The settings.
        placement: The devices.
        folder: The run's folder.
        steps_per_epoch: Batches of an epoch.
        signals: What may stop the run.

    Raises:
        InputError: If there is no such device.
    """
    accelerator = placement.accelerator
    metrics = MetricsCsv(folder)
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=placement.devices,
            num_nodes=placement.nodes,
            strategy=placement.lightning_strategy(),
            use_distributed_sampler=False,  # EvenBatches gives each process its part
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
                DataWait(config.image_cache),
                Logbook(folder),
                RunProgress(),
            ],
            logger=[
                metrics,
                TensorBoardLogger(folder, "", "tensorboard"),
            ],
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
            got=f"--accelerator {config.accelerator} --devices {config.devices}"
            f" --precision {config.precision}: {error}",
            remedy="leave --accelerator, --devices and --precision at auto",
        ) from error


def _without_requeueing() -> list[SLURMEnvironment]:
    """Under SLURM, keep Lightning from saving in the midst of a step and requeueing by itself.

    It would also begin a new run from any ``hpc_ckpt`` it finds. ``--resume auto`` goes on instead.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []  # torchrun within SLURM: torchrun knows which process this is
    return [SLURMEnvironment(auto_requeue=False)]
