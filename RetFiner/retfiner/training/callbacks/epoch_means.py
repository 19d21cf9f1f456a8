"""Mean training losses of an epoch, also of one that was interrupted."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from retfiner.training.module import RefinementModule


class EpochMeans(pl.Callback):
    """Log each training loss once an epoch: its mean over the pairs.

    Lightning's own epoch means begin anew where a run goes on in the middle of an epoch; these are
    part of the checkpoint. (torchmetrics 1.9's MeanMetric waits for the device at each update to
    look for NaN and, told not to, leaves the weights out.)
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.pairs = 0

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
        losses, size = pl_module.batch_losses, pl_module.batch_pairs
        for name, value in losses.items():
            added = value * size
            self.sums[name] = self.sums[name].to(added) + added if name in self.sums else added
        self.pairs += size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the means and begin anew."""
        pl_module.log_dict(
            {f"train/{name}": total / self.pairs for name, total in self.sums.items()}
        )
        self.sums, self.pairs = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch so far, for a checkpoint."""
        sums = {name: value.detach().cpu().clone() for name, value in self.sums.items()}
        return {"sums": sums, "pairs": self.pairs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the sums of a checkpoint."""
        self.sums = {name: torch.as_tensor(v) for name, v in state_dict["sums"].items()}
        self.pairs = int(state_dict["pairs"])
