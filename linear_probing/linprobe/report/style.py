"""How figures look, so that they read in colour, in grey print and to colour-blind readers.

The first model (the base) is blue, dashed and hollow, the second vermilion, solid and filled, and
so on: colours from the palette of Okabe and Ito, and never colour alone.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("--", "-", "-.", ":")
GREY = "#6b6b6b"
LIGHT = "#d0d0d0"
SMALL = 8
STYLE: Any = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": SMALL,
    "axes.titlesize": SMALL + 1,
    "axes.labelsize": SMALL + 1,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL - 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
}
"""Settings of matplotlib for all figures, sizes in points."""


def grid(figure: Figure, n: int, columns: int) -> list[Axes]:
    """Lay out n panels in so many columns; unused ones are hidden."""
    axes = figure.subplots(-(-n // columns), columns, squeeze=False).ravel().tolist()
    for ax in axes[n:]:
        ax.set_visible(False)
    return axes[:n]


def shorten_name(name: str, limit: int = 18) -> str:
    """Cut a long class name, so that it leaves room for what it names."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def share_legend(figure: Figure, ax: Axes, columns: int = 2) -> None:
    """Put one legend above all panels."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def class_style(index: int) -> dict[str, Any]:
    """Colour and marker of a class; with more than eight classes the marker changes the round."""
    n = len(COLOURS)
    return {"color": COLOURS[index % n], "marker": MARKERS[(index + index // n) % n]}


def model_style(index: int) -> dict[str, Any]:
    """Colour, marker, its face and the line of a model, by its place among all."""
    style = class_style(index)
    face = "white" if index == 0 else style["color"]
    return {**style, "linestyle": LINES[index % len(LINES)], "markerfacecolor": face}
