"""Histograms as SVG, to stand within a page."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

MOST_BARS = 40
BLUE, VERMILION = "#0072B2", "#D55E00"
"""Of the palette of Okabe and Ito, which colour-blind readers tell apart."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "retfiner",  # else ids are random, and the same data give another page
    "font.size": 10,
    "hatch.color": "white",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "ytick.major.size": 0,
}


def integer_edges(numbers: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Return bin edges for whole numbers, so that no bar is on both sides of the limit.

    A number's bar is centred on it: half a unit to each side.

    Args:
        numbers: What is counted.
        limit: The last number on the limit's near side.
    """
    low, high = int(numbers.min()), int(numbers.max())
    width = max(1, math.ceil((high - low + 1) / MOST_BARS))
    if limit is not None:
        low = limit + 1 - math.ceil((limit + 1 - low) / width) * width
    return np.arange(low, high + 1 + width, width) - 0.5


def draw_histogram(
    counts: np.ndarray, edges: np.ndarray, x_label: str, y_label: str, limit: float | None = None
) -> str:
    """Draw a histogram; bars beyond the limit differ in colour and pattern.

    Args:
        counts: N counts.
        edges: N + 1 edges.
        x_label: What is counted, with its unit.
        y_label: What the counts are of.
        limit: Where a dashed line stands between what is kept and what is cut.

    Returns:
        An SVG as a data URI.
    """
    with mpl.rc_context(STYLE):
        # Figure alone, not pyplot: no global state, no display, no leak in long runs.
        figure = Figure(figsize=(7.4, 2.8), layout="constrained")
        axes = figure.subplots()
        draw_bars(axes, counts, edges, limit)
        axes.set(xlabel=x_label, ylabel=y_label)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def draw_bars(axes: Axes, counts: np.ndarray, edges: np.ndarray, limit: float | None) -> None:
    """Draw the bars, and the line at the limit; see :func:`draw_histogram`."""
    beyond = np.zeros(len(counts), bool) if limit is None else edges[:-1] >= limit
    for bars, hatch, colour in ((~beyond, None, BLUE), (beyond, "////", VERMILION)):
        left, width = edges[:-1][bars], np.diff(edges)[bars]
        axes.bar(left, counts[bars], width, align="edge", ec="white", fc=colour, hatch=hatch)
    if limit is not None:
        axes.axvline(limit, color="#1a1a1a", linewidth=1, dashes=(5, 4))
        axes.annotate(
            f"cut after {math.floor(limit)}", (limit, 1), xytext=(0, 3), ha="center",
            xycoords=("data", "axes fraction"), textcoords="offset points",
        )  # fmt: skip
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=edges[-1] > 1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color="#ddd")
    axes.set_axisbelow(True)
