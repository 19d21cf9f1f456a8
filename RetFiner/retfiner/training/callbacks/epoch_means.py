"""Mean training losses of an epoch, also of one that was interrupted."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric

from retfiner.training.module import RefinementModule


class EpochMeans(pl.Callback):
    """Log each training loss once an epoch: its mean over the pairs.

    Lightning's own epoch means begin anew where a run goes on in the middle of an epoch; these are
    part of the checkpoint.
    """

    def __init__(self) -> None:
        self.means: dict[str, MeanMetric] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add a batch's losses, weighted by its pairs."""
        assert isinstance(pl_module, RefinementModule)
        for name, value in pl_module.batch_losses.items():
            if name not in self.means:
                self.means[name] = _mean()
            self.means[name].to(value.device).update(value, weight=pl_module.batch_pairs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the means and begin anew."""
        pl_module.log_dict({f"train/{name}": mean.compute() for name, mean in self.means.items()})
        self.means = {}

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the sums of the epoch so far, for a checkpoint."""
        return {name: _on_cpu(mean.metric_state) for name, mean in self.means.items()}

    def load_state_dict(self, state_dict: dict[str, dict[str, torch.Tensor]]) -> None:
        """Go on with the sums of a checkpoint."""
        self.means = {name: _mean(**sums) for name, sums in state_dict.items()}


def _mean(**sums: torch.Tensor) -> MeanMetric:
    # Losses are averaged over processes and checked for finiteness before they come here; checking
    # for NaN again would make the processor wait for the device.
    mean = MeanMetric(nan_strategy="disable", sync_on_compute=False)
    for name, value in sums.items():
        setattr(mean, name, value)
    if sums:
        mean._update_count = 1  # else it warns that there is nothing to average
    return mean


def _on_cpu(sums: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in sums.items()}
