"""What a run writes about itself: metrics.csv, curves.png, and a line an epoch on the terminal."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tqdm import tqdm

from retfiner.common.files import whole_file
from retfiner.launch import is_first_process


class _AppendingWriter(ExperimentWriter):
    """Go on with a metrics.csv that is there; Lightning's own writer would delete it."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class MetricsCsv(CSVLogger):
    """Lightning's CSV logger, writing ``metrics.csv`` straight into the run's folder.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder.parent, name=folder.name, version="")
        if is_first_process():  # Lightning asks no other for one, and making one makes a folder
            self._experiment = _AppendingWriter(log_dir=str(folder))
        self._path = folder / "metrics.csv"

    def text(self) -> str:
        """Return all rows so far as the file holds them, for a checkpoint."""
        self.save()
        return self._path.read_bytes().decode() if self._path.is_file() else ""

    @rank_zero_only
    def restore(self, text: str) -> None:
        """Let the file hold the rows of a checkpoint, and none that were logged after it.

        Args:
            text: What :meth:`text` returned.
        """
        assert isinstance(self._experiment, _AppendingWriter)
        with whole_file(self._path) as temporary:
            temporary.write_bytes(text.encode())
        self._experiment.metrics = []
        self._experiment.metrics_keys = next(csv.reader(text.splitlines()), [])


@rank_zero_only
def retell(logger: TensorBoardLogger, text: str) -> None:
    """Let TensorBoard's files hold the rows of a checkpoint, and none that were logged after it.

    Args:
        logger: The logger, which has not logged yet.
        text: The rows, as :meth:`MetricsCsv.text` returned them.
    """
    for path in Path(logger.log_dir).glob("events.out.tfevents.*"):
        path.unlink()
    for row in csv.DictReader(text.splitlines()):
        values = {name: float(value) for name, value in row.items() if value and name != "step"}
        logger.log_metrics(values, int(row["step"]))


class Logbook(pl.Callback):
    """Draw ``curves.png`` and print a line after each epoch.

    Args:
        folder: The run's folder, where ``metrics.csv`` lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = math.inf

    def state_dict(self) -> dict[str, float]:
        """Return the lowest validation loss so far, for a checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from the lowest validation loss of the run that is resumed."""
        self.best = state_dict["best"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's figures."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        is_best = metrics["val/loss"] < self.best
        self.best = min(self.best, metrics["val/loss"])
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
    """Format an epoch's losses and recall as one line.

    Args:
        epoch: Its number, from 1.
        metrics: What was logged.
        is_best: Whether the validation loss is the lowest so far.
    """
    losses = [n.removeprefix("val/") for n in metrics if n.startswith("val/") and "recall" not in n]
    pairs = [
        f"{name} {metrics.get(f'train/{name}', math.nan):.3f}/{metrics[f'val/{name}']:.3f}"
        for name in sorted(losses, key=lambda n: n != "loss")
    ]
    recall = [
        f"{label} {100 * metrics[key]:.1f} %"
        for key, label in (
            ("val/image_to_text_recall@5", "image-to-text R@5"),
            ("val/text_to_image_recall@5", "text-to-image R@5"),
        )
        if key in metrics
    ]
    return f"epoch {epoch:>2}  train/val: " + "  ".join(pairs + recall) + ("  *" if is_best else "")


def format_summary(
    before: dict[str, float], best: dict[str, float], chance: dict[str, float]
) -> str:
    """Format what a run achieved on validation as a small table.

    Args:
        before: Validation metrics before the first step; empty for a resumed run.
        best: Those of the best checkpoint.
        chance: Recall of a random order, by the same names; may be empty.
    """
    lines = [f"{'on patients never trained on':<30}{'before':>10}{'after':>10}{'chance':>10}"]
    losses = sorted((n for n in best if "recall" not in n), key=lambda n: (n != "val/loss", n))
    recalls = sorted(
        (n for n in best if "recall" in n), key=lambda n: (n.split("@")[0], int(n.split("@")[1]))
    )
    for name in losses + recalls:
        plain = name.removeprefix("val/")
        if "recall" in plain:
            label = plain.replace("_", " ")
            at_random = chance.get(plain)
            cells = [
                f"{100 * value:.1f} %"
                for value in (before.get(name), best[name], at_random)
                if value is not None
            ]
            if before.get(name) is None:
                cells.insert(0, "")
        else:
            label = f"loss, {'sum' if plain == 'loss' else plain.upper()}"
            cells = [f"{before[name]:.3f}" if name in before else "", f"{best[name]:.3f}"]
        lines.append(f"{label:<30}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def draw_curves(metrics_csv: Path, target: Path) -> None:
    """Draw each loss and the recall over the optimiser's steps, training and validation.

    Args:
        metrics_csv: The run's metrics.csv.
        target: The PNG to write.
    """
    # Figure's own canvas, not pyplot: no global state, no display, no leak in long runs.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = pd.read_csv(metrics_csv)
    losses = [c.removeprefix("val/") for c in table if c.startswith("val/") and "recall" not in c]
    losses = sorted(losses, key=lambda n: (n != "loss", n))
    has_recall = any("recall" in column for column in table)
    panels = len(losses) + has_recall
    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, name in zip(axes, losses, strict=False):
        _draw_loss(axis, table, name)
    recall_axis = axes[len(losses)] if has_recall else None
    if recall_axis is not None:
        _draw_recall(recall_axis, table)
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[:panels]:
        axis.set_xlabel("optimiser step")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8, ncols=2 if axis is recall_axis else 1)
    with whole_file(target) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9aa5ad"


def _draw_loss(axis: Any, table: pd.DataFrame, name: str) -> None:
    for column, label, style in (
        (f"step/{name}", "training, step", {"color": GREY, "linewidth": 0.8}),
        (f"train/{name}", "training, epoch", {"color": BLUE, "marker": "o", "markersize": 3}),
        (f"val/{name}", "validation", {"color": ORANGE, "marker": "s", "markersize": 3}),
    ):
        if column in table:
            seen = table.dropna(subset=[column])
            axis.plot(seen["step"], seen[column], label=label, **style)
    axis.set_title("sum of the losses" if name == "loss" else name.upper(), fontsize=10)


def _draw_recall(axis: Any, table: pd.DataFrame) -> None:
    markers = {"1": "o", "5": "s", "10": "^"}
    for direction, colour in (("image_to_text", BLUE), ("text_to_image", GREEN)):
        for k, marker in markers.items():
            column = f"val/{direction}_recall@{k}"
            if column in table:
                seen = table.dropna(subset=[column])
                axis.plot(
                    seen["step"],
                    100 * seen[column],
                    color=colour,
                    marker=marker,
                    markersize=3,
                    linestyle="-" if direction == "image_to_text" else "--",
                    label=f"{direction.replace('_', ' ')} @{k}",
                )
    axis.set_title("recall on validation, %", fontsize=10)
    axis.set_ylim(0, 1.45 * max(axis.get_ylim()[1], 1))  # room for the legend
