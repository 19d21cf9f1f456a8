"""Figures that compare pairs of models: change by data set, and label efficiency.

Each draws numbers already computed on a figure it is given, and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from linprobe.report.style import BASE, GREY, REFINED, SMALL, grid, share_legend, tidy
from linprobe.report.summary import Row
from linprobe.report.wilcoxon import stars

FloatArray = NDArray[np.float64]

COLUMNS = 3
"""Panels side by side, one for each pair."""


def plot_change(figure: Figure, rows: Sequence[Row], unit: str) -> Figure:
    """Draw the change on each data set: mean, 95 % interval over seeds, and every seed.

    Args:
        figure: Empty.
        rows: Rows of the main table.
        unit: Label of the axis.
    """
    pairs = list(dict.fromkeys(row.pair for row in rows))
    columns = min(COLUMNS, len(pairs))
    axes = grid(figure, len(pairs), columns)
    for ax, pair in zip(axes, pairs, strict=True):
        own = [row for row in reversed(rows) if row.pair == pair]
        for height, row in enumerate(own):
            _draw_change(ax, row, height)
        ax.axvline(0, color=GREY, linewidth=0.9, linestyle=":")
        ax.set_yticks(range(len(own)), [row.data_set or "Mean" for row in own])
        ax.set_ylim(-0.6, len(own) - 0.35)
        ax.set_title(pair, fontsize=SMALL + 2)
        tidy(ax)
    figure.supxlabel(unit, fontsize=SMALL + 1)
    limits = [ax.get_xlim() for ax in axes]
    for ax in axes:  # one scale, so that pairs can be compared
        ax.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _draw_change(ax: Axes, row: Row, height: int) -> None:
    """Draw one row: a mark for each seed, the interval, and the mean with its stars."""
    mean = row.data_set is None
    colour = "#000000" if mean else REFINED["color"]
    if mean:
        ax.axhspan(height - 0.5, height + 0.5, color="#f1f1f1", zorder=0)
    seeds = row.refined - row.base
    ax.plot(seeds, np.full(len(seeds), height - 0.22), "|", color=GREY, markersize=5)
    if row.interval is not None:
        ax.hlines(height, *row.interval, color=colour, linewidth=1.6)
    ax.plot(row.change, height, "D" if mean else "s", color=colour, markersize=6)
    ax.annotate(
        f"{row.change:+.1f}{stars(row.test.p)}".replace("-", "−"),
        (row.change, height),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=SMALL,
        fontweight="bold" if mean else "normal",
    )


@dataclass(frozen=True)
class EfficiencyPanel:
    """One pair's means over data sets at each share of the training images.

    Attributes:
        title: Name of the pair.
        fractions: (K,) shares, rising.
        base: For each share, one value a seed.
        refined: Likewise.
    """

    title: str
    fractions: Sequence[float]
    base: Sequence[FloatArray]
    refined: Sequence[FloatArray]


def plot_efficiency(figure: Figure, panels: Sequence[EfficiencyPanel], label: str) -> Figure:
    """Draw the metric against the share of the training images, mean and spread over seeds.

    Args:
        figure: Empty.
        panels: One for each pair.
        label: Of the vertical axis.
    """
    columns = min(COLUMNS, len(panels))
    axes = grid(figure, len(panels), columns)
    for index, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        for name, values, style, face, shift in (
            ("base", panel.base, BASE, "white", 0.985),
            ("refined", panel.refined, REFINED, REFINED["color"], 1.015),
        ):
            means = [float(np.mean(one)) for one in values]
            spread = [float(np.std(one, ddof=1)) if len(one) > 1 else 0.0 for one in values]
            where = 100 * np.asarray(panel.fractions) * shift  # side by side, not over each other
            ax.errorbar(
                where,
                means,
                yerr=spread,
                label=name,
                capsize=3,
                linewidth=1.6,
                markerfacecolor=face,
                **style,
            )
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator([100 * share for share in panel.fractions]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_title(panel.title, fontsize=SMALL + 2)
        ax.set_xlabel("Training images used (%)", fontsize=SMALL + 1)
        if index % columns == 0:
            ax.set_ylabel(label, fontsize=SMALL + 1)
        tidy(ax)
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    share_legend(figure, axes[0])
    return figure
