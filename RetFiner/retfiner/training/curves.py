"""``curves.png``: losses and recall over the optimiser's steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retfiner.common.files import whole_file
from retfiner.training.verdict import loss_names

if TYPE_CHECKING:
    import pandas as pd


def draw_curves(metrics_csv: Path, target: Path) -> None:
    """Draw each loss and the recall over the optimiser's steps, training and validation."""
    import pandas as pd  # half a second: not before the first step

    # Figure's own canvas, not pyplot: no global state, no display, no leak in long runs.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = pd.read_csv(metrics_csv)
    losses = loss_names(table)
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
        (f"shuffled/{name}", "images shuffled", {"color": ORANGE, "linestyle": ":"}),
        (f"chance/{name}", "guessing", {"color": "black", "linestyle": "--", "linewidth": 1}),
    ):
        if column in table:
            seen = table.dropna(subset=[column])
            axis.plot(seen["step"], seen[column], label=label, **style)
    axis.set_title("sum of the losses" if name == "loss" else name.upper(), fontsize=10)


def _draw_recall(axis: Any, table: pd.DataFrame) -> None:
    markers = {"1": "o", "5": "s", "10": "^"}
    for direction, colour in (("image_to_text", BLUE), ("text_to_image", GREEN)):
        for k, marker in markers.items():
            name = f"{direction}_recall@{k}"
            label = f"{direction.replace('_', ' ')} @{k}"
            style = {"linestyle": "-" if direction == "image_to_text" else "--", "color": colour}
            for column, extra in (
                (f"val/{name}", {"marker": marker, "markersize": 3, "label": label}),
                (f"chance/{name}", {"linewidth": 0.8, "alpha": 0.45}),
            ):
                if column in table:
                    seen = table.dropna(subset=[column])
                    axis.plot(seen["step"], 100 * seen[column], **style, **extra)
    axis.set_title("recall on validation, % (thin: by chance)", fontsize=10)
    highest = min(100.0, max(axis.get_ylim()[1], 1))
    axis.set_ylim(0, 1.45 * highest)  # room for the legend
    axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= 100])
