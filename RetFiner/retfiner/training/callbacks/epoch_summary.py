"""A line an epoch on the terminal, and the curves at the end."""

from __future__ import annotations

import math
from pathlib import Path

import pytorch_lightning as pl
from tqdm import tqdm

from retfiner.training.curves import draw_curves
from retfiner.training.monitor import Monitor
from retfiner.training.verdict import loss_names, read_objectives


class EpochSummary(pl.Callback):
    """Draw ``curves.png`` and print a line after each epoch.

    Args:
        folder: The run's folder, where ``metrics.csv`` lies.
        monitor: What decides which epoch is best.
    """

    def __init__(self, folder: Path, monitor: Monitor) -> None:
        self.folder = folder
        self.monitor = monitor
        self.best: float | None = None

    def state_dict(self) -> dict[str, float | None]:
        """Return the best value so far, for a checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        """Go on from the best value of the run that is resumed, if its weights are there."""
        self.best = state_dict["best"] if (self.folder / "best-model.ckpt").is_file() else None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's figures."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        column = self.monitor.column
        value = None if column is None else metrics.get(column, math.nan)
        is_best = value is None or self.monitor.is_better(value, self.best)
        self.best = value if is_best else self.best
        if trainer.is_global_zero:
            tqdm.write(format_epoch(trainer.current_epoch + 1, metrics, is_best))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the curves."""
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.save()
        draw_curves(self.folder / "metrics.csv", self.folder / "curves.png")


def format_epoch(epoch: int, metrics: dict[str, float], is_best: bool) -> str:
    """Format an epoch's losses, what they say, and recall as one line."""
    objectives = read_objectives(metrics)
    pairs = []
    for name in loss_names(metrics):
        text = f"{name} {metrics.get(f'train/{name}', math.nan):.3f}/{metrics[f'val/{name}']:.3f}"
        pairs.append(f"{text} ({objectives[name].verdict})" if name in objectives else text)
    recall = []
    for way, label in (("image_to_text", "image-to-text"), ("text_to_image", "text-to-image")):
        value, chance = (metrics.get(f"{kind}/{way}_recall@5") for kind in ("val", "chance"))
        if value is not None:
            text = f"{label} R@5 {100 * value:.1f} %"
            recall.append(text if chance is None else f"{text} (chance {100 * chance:.1f})")
    if "guard/refined" in metrics:
        recall.append(f"neighbours {metrics['guard/base']:.3f} -> {metrics['guard/refined']:.3f}")
    return f"epoch {epoch:>2}  train/val: " + "  ".join(pairs + recall) + ("  *" if is_best else "")
