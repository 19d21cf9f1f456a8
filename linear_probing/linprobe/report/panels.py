"""Figures with one panel a data set: ROC, confusion, reliability, and the map of the features.

Each draws numbers already computed on a figure it is given, and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from linprobe.report.curves import FALSE_POSITIVE_RATES, Reliability
from linprobe.report.style import BASE, LIGHT, REFINED, SMALL, class_style, grid, shorten_name, tidy

FloatArray = NDArray[np.float64]

GRID_COLUMNS = 4
"""Panels side by side, where each data set has one."""


@dataclass(frozen=True)
class RocPanel:
    """One data set's mean ROC curves over seeds, and the weighted AUROC in percent."""

    title: str
    base: FloatArray
    refined: FloatArray
    base_area: float
    refined_area: float


def plot_roc(figure: Figure, panels: Sequence[RocPanel]) -> Figure:
    """Draw the average ROC curves, one panel a data set.

    Args:
        figure: Empty.
        panels: One for each data set.
    """
    for ax, panel in zip(
        grid(figure, len(panels), min(GRID_COLUMNS, max(1, len(panels)))), panels, strict=True
    ):
        ax.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
        for name, curve, area, style in (
            ("base", panel.base, panel.base_area, BASE),
            ("refined", panel.refined, panel.refined_area, REFINED),
        ):
            ax.plot(
                np.append(0.0, FALSE_POSITIVE_RATES),
                np.append(0.0, curve),  # every curve begins in the corner
                label=f"{name} {area:.1f}",
                linewidth=1.6,
                color=style["color"],
                linestyle=style["linestyle"],
            )
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        ax.set_title(panel.title, fontsize=SMALL + 1)
        ax.set_xlabel("False positive rate", fontsize=SMALL)
        ax.set_ylabel("True positive rate", fontsize=SMALL)
        ax.legend(title="AUROC (%)", title_fontsize=SMALL, fontsize=SMALL, loc="lower right")
        tidy(ax)
    return figure


@dataclass(frozen=True)
class ConfusionPanel:
    """One data set's confusion matrices (C, C), rows summing to 1 or NaN."""

    title: str
    classes: Sequence[str]
    base: FloatArray
    refined: FloatArray


def plot_confusion(figure: Figure, panels: Sequence[ConfusionPanel]) -> Figure:
    """Draw confusion matrices in percent of each true class, base beside refined.

    Args:
        figure: Empty.
        panels: One for each data set; each takes a row.
    """
    heights = [max(2, len(panel.classes)) for panel in panels]
    axes = figure.subplots(len(panels), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, panel in zip(axes, panels, strict=True):
        for ax, name, shares in zip(
            row, ("base", "refined"), (panel.base, panel.refined), strict=True
        ):
            _draw_confusion(ax, shares, panel.classes)
            ax.set_title(f"{panel.title}, {name}", fontsize=SMALL + 1)
    return figure


def _draw_confusion(ax: Axes, shares: FloatArray, classes: Sequence[str]) -> None:
    ax.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), share in np.ndenumerate(shares):
        ax.text(
            predicted,
            true,
            "–" if np.isnan(share) else f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if share > 0.7 else "black",
            fontweight="bold" if true == predicted else "normal",
        )
    names = [shorten_name(name) for name in classes]
    rotation = 40 if max(map(len, names)) > 6 or len(names) > 5 else 0
    ax.set_xticks(range(len(names)), names, rotation=rotation, ha="right" if rotation else "center")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(labelsize=SMALL, length=0)
    ax.set_xlabel("Predicted", fontsize=SMALL)
    ax.set_ylabel("True", fontsize=SMALL)


@dataclass(frozen=True)
class ReliabilityPanel:
    """One data set's reliability, over all seeds together."""

    title: str
    base: Reliability
    refined: Reliability


def plot_reliability(figure: Figure, panels: Sequence[ReliabilityPanel]) -> Figure:
    """Draw accuracy against confidence; a larger mark stands for more images.

    Args:
        figure: Empty.
        panels: One for each data set.
    """
    for ax, panel in zip(
        grid(figure, len(panels), min(GRID_COLUMNS, max(1, len(panels)))), panels, strict=True
    ):
        ax.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
        for name, curve, style, face in (
            ("base", panel.base, BASE, "white"),
            ("refined", panel.refined, REFINED, REFINED["color"]),
        ):
            label = f"{name} {100 * curve.error:.1f}"
            ax.plot([], [], label=label, markersize=4, markerfacecolor=face, **style)
            plain = {"color": style["color"], "linestyle": style["linestyle"]}
            ax.plot(curve.confidence, curve.accuracy, linewidth=1.2, **plain)
            ax.scatter(
                curve.confidence,
                curve.accuracy,
                s=8 + 260 * curve.share,
                zorder=3,
                marker=style["marker"],
                facecolor=face,
                edgecolor=style["color"],
            )
        ax.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        ax.set_title(panel.title, fontsize=SMALL + 1)
        ax.set_xlabel("Confidence", fontsize=SMALL)
        ax.set_ylabel("Accuracy", fontsize=SMALL)
        ax.legend(title="ECE (%)", title_fontsize=SMALL, fontsize=SMALL, loc="best")
        tidy(ax)
    return figure


@dataclass(frozen=True)
class MapPanel:
    """One data set's features of both models, laid out in two dimensions.

    Attributes:
        title: Name of the data set.
        classes: C names.
        labels: (N,).
        base: (N, 2).
        refined: (N, 2).
    """

    title: str
    classes: Sequence[str]
    labels: NDArray[np.integer[Any]]
    base: FloatArray
    refined: FloatArray


def plot_map(figure: Figure, panels: Sequence[MapPanel]) -> Figure:
    """Draw the maps of the features by class, base beside refined.

    Args:
        figure: Empty.
        panels: One for each data set; each takes a row.
    """
    axes = figure.subplots(len(panels), 2, squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for ax, name, points in zip(
            row, ("base", "refined"), (panel.base, panel.refined), strict=True
        ):
            for index, class_name in enumerate(panel.classes):
                chosen = points[panel.labels == index]
                ax.scatter(
                    chosen[:, 0],
                    chosen[:, 1],
                    s=16,
                    linewidth=0.4,
                    edgecolor="white",
                    label=shorten_name(class_name),
                    **class_style(index),
                )
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{panel.title}, {name}", fontsize=SMALL + 1)
            ax.spines[:].set_color(LIGHT)
        row[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=SMALL)
    return figure
