"""All figures of a report: each draws numbers already computed, and says what it shows.

None belongs to a window or to pyplot's global state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from linprobe.report.scores import ScoredSet
from linprobe.report.style import (
    GREY,
    LIGHT,
    SMALL,
    STYLE,
    class_style,
    grid,
    model_style,
    share_legend,
    shorten_name,
)
from linprobe.report.summary import MEAN, Change, Interval, Summary
from linprobe.statistics import FloatArray, stars
from retfiner.common.metrics import ALL_METRICS, ECE_BINS, make_sample

COLUMN = 3.5
"""Width in inches of a column of print; panels beside one another take a page's two."""
GRID_COLUMNS = 4
IntArray = NDArray[np.integer[Any]]


class Drawing(NamedTuple):
    """A figure: stem of its files, heading, what it shows, and the table it belongs to."""

    name: str
    title: str
    caption: str
    figure: Figure
    after: str = ""


class EfficiencyPoint(NamedTuple):
    """A model's mean over data sets at one share of the training images.

    ``trained_on`` is the mean number of patients, or images, that were really used.
    """

    model: str
    trained_on: float
    value: float
    interval: Interval


def draw_changes(summary: Summary) -> Drawing:
    """Draw a forest plot: the change on each data set, and on their mean."""
    columns = min(3, len(summary.pairs))
    rows = -(-len(summary.pairs) // columns)
    height = (0.3 * (len(summary.sets) + 1) + 0.75) * rows
    figure = Figure(figsize=(COLUMN if columns == 1 else 2.4 * columns + 0.8, height))
    axes = grid(figure, len(summary.pairs), columns)
    for ax, pair in zip(axes, summary.pairs, strict=True):
        own = summary.of_pair(pair)[::-1]
        for place, change in enumerate(own):
            _draw_change(ax, change, place, ALL_METRICS[summary.metric].scale)
        ax.axvline(0, color=GREY, linewidth=0.9, linestyle=":")
        ax.set_yticks(range(len(own)), [shorten_name(one.data_set, 24) for one in own])
        ax.set_ylim(-0.6, len(own) - 0.3)
        if len(summary.pairs) > 1:
            between = " " if len("".join(pair)) < 24 else "\n"
            ax.set_title(f"{pair[0]} →{between}{pair[1]}")
    ends = np.array([ax.get_xlim() for ax in axes])
    for ax in axes:  # one scale for all, so that they can be compared
        ax.set_xlim(ends[:, 0].min(), ends[:, 1].max())
    info = ALL_METRICS[summary.metric]
    unit = " (points)" if info.scale == 100 else ""
    figure.supxlabel(f"Change in {info.phrase}{unit}", fontsize=SMALL + 1)
    return Drawing(
        "change",
        "Change on each data set",
        "Compared model minus base, seeds averaged. Line: 95 % bootstrap interval by "
        f"{summary.unit}. "
        "Diamond: mean over data sets. Stars: p (Holm) of the table; the mean's needs enough data "
        f"sets. {'More' if info.higher_is_better else 'Less'} is better.",
        figure,
        "Results",
    )


def _draw_change(ax: Axes, change: Change, place: int, scale: float) -> None:
    mean = change.data_set == MEAN
    colour = "#000000" if mean else class_style(1)["color"]
    if mean:
        ax.axhspan(place - 0.5, place + 0.5, color="#f1f1f1", zorder=0)
    if change.interval is not None:
        ax.hlines(place, *change.interval, color=colour, linewidth=1.6)
    ax.plot(change.change, place, "D" if mean else "s", color=colour, markersize=5)
    number = f"{change.change:+.{1 if scale == 100 else 2}f}".replace("-", "−")
    text = f"{number}{stars(change.p_holm)}"
    ax.annotate(text, (change.change, place), xytext=(0, 5), textcoords="offset points",
                ha="center", fontsize=SMALL - 1,
                fontweight="bold" if mean else "normal")  # fmt: skip


def draw_scores(summary: Summary) -> Drawing:
    """Draw a dumbbell plot: what each model scores on each data set."""
    names = summary.rows[::-1]
    legend = 0.09 * len(summary.models)  # two columns, above
    figure = Figure(figsize=(COLUMN, 0.3 * len(names) + 0.8 + legend))
    ax = figure.subplots()
    scores = {m: [summary.scores[m, name].mean for name in names] for m in summary.models}
    values = np.array(list(scores.values()))
    ax.hlines(range(len(names)), values.min(axis=0), values.max(axis=0), color=LIGHT,
              linewidth=2.5, zorder=0)  # fmt: skip
    for index, (model, own) in enumerate(scores.items()):
        style = model_style(index) | {"linestyle": "none", "markersize": 6}
        ax.plot(own, range(len(names)), label=shorten_name(model, 26), **style)
    chances = [chance for name in names if (chance := summary.chance_on(name)) is not None]
    if len(chances) == len(names):
        ax.plot(chances, range(len(names)), "|", color=GREY, markersize=9, label="chance")
    ax.set_ylim(-0.5, len(names) - 0.5)
    ax.set_yticks(range(len(names)), [shorten_name(name, 24) for name in names])
    ax.set_xlabel(ALL_METRICS[summary.metric].axis)
    share_legend(figure, ax)
    return Drawing(
        "scores",
        "Scores on each data set",
        "Mean over seeds. The bar joins the models on a data set; the tick is chance.",
        figure,
        "Results" if len(summary.models) < 3 else "Leaderboard",
    )


def draw_ranks(summary: Summary) -> Drawing:
    """Draw mean ranks with the critical difference (Demsar, 2006)."""
    order = sorted(summary.models, key=lambda model: -summary.ranks[model])
    figure = Figure(figsize=(COLUMN, 0.26 * len(order) + 0.7))
    ax = figure.subplots()
    for place, model in enumerate(order):
        rank = summary.ranks[model]
        style = model_style(summary.models.index(model)) | {"linestyle": "none"}
        ax.hlines(place, rank, rank + summary.critical, color=LIGHT, linewidth=2.5, zorder=0)
        ax.plot(rank, place, markersize=6, **style)
    ax.set_yticks(range(len(order)), [shorten_name(model, 26) for model in order])
    ax.set_ylim(-0.5, len(order) - 0.5)
    ax.set_xlim(0.8, len(order) + 0.2)
    ax.set_xlabel("Mean rank (1 is best)")
    return Drawing(
        "ranks",
        "Mean ranks and critical difference",
        f"A model differs from those that lie beyond the end of its bar, {summary.critical:.2f} "
        "ranks long (Nemenyi, all pairs together, p<0.05).",
        figure,
        "Leaderboard",
    )


def draw_efficiency(points: Sequence[EfficiencyPoint], metric: str, word: str) -> Drawing:
    """Draw a metric against how many patients, or images, probes were trained on."""
    models = list(dict.fromkeys(point.model for point in points))
    figure = Figure(figsize=(COLUMN, 2.8 + 0.09 * len(models)))
    ax = figure.subplots()
    for index, model in enumerate(models):
        own = [point for point in points if point.model == model]
        shift = 1.03 ** (index - (len(models) - 1) / 2)  # side by side, not over each other
        values = np.array([point.value for point in own])
        ends = np.array([point.interval or (point.value, point.value) for point in own])
        ax.errorbar([point.trained_on * shift for point in own], values,
                    np.abs(ends.T - values), capsize=2, linewidth=1.4, markersize=5,
                    label=shorten_name(model, 26), **model_style(index))  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted({p.trained_on for p in points})))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    ax.set(xlabel=f"Labelled {word} used, mean over data sets", ylabel=ALL_METRICS[metric].axis)
    share_legend(figure, ax)
    return Drawing(
        "label_efficiency",
        "Label efficiency",
        f"Mean over the data sets against the number of labelled {word} really used. Bars: 95 % "
        "bootstrap interval. Marks are set slightly apart to be told apart.",
        figure,
    )


def confusion_shares(tables: FloatArray, labels: IntArray) -> FloatArray:
    """Share of each true class that was predicted as each, over (S, N, C) tables of all seeds.

    Gives (C, C), true by predicted; rows sum to 1, or are NaN for a class without an image.
    """
    sample = make_sample(np.concatenate(tables), np.tile(labels, len(tables)))
    with np.errstate(invalid="ignore"):
        return np.asarray(sample.confusion[0] / sample.support[0, :, None])


def reliability(probabilities: FloatArray, labels: IntArray) -> pd.DataFrame:
    """Bin predictions by their confidence; bins are equally wide and closed on the right.

    Gives mean ``confidence``, ``accuracy`` and ``share`` of the images of each that holds one.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * ECE_BINS).clip(1, ECE_BINS)
    grouped = pd.DataFrame({"confidence": confidence, "accuracy": right}).groupby(bins)
    return grouped.mean().assign(share=grouped.size() / len(labels))


def draw_calibration(summary: Summary) -> Drawing:
    """Draw accuracy against confidence."""
    n = len(summary.sets)
    columns, below = min(GRID_COLUMNS, n), 0.18 * (2 + len(summary.models))
    figure = Figure(figsize=(2.4 * columns + 0.4, (2.4 + below) * -(-n // columns) + 0.2))
    for ax, one in zip(grid(figure, n, columns), summary.sets, strict=True):
        ax.plot([0, 1], [0, 1], color=LIGHT, linewidth=1, zorder=0)
        ax.set(xlim=(-0.02, 1.03), ylim=(-0.02, 1.03), aspect="equal", title=one.name)
        for index, model in enumerate(summary.models):
            tables = one.probabilities[model]
            curve = reliability(np.concatenate(tables), np.tile(one.labels, len(tables)))
            style = model_style(index)
            label = f"{shorten_name(model)} {one.values('ece', model).mean():.1f}"
            ax.plot(curve.confidence, curve.accuracy, linewidth=1.1, markersize=0, **style)
            ax.scatter(curve.confidence, curve.accuracy, s=6 + 200 * curve.share, zorder=3,
                       marker=style["marker"], facecolor=style["markerfacecolor"],
                       edgecolor=style["color"], label=label)  # fmt: skip
        ax.set(xlabel="Confidence", ylabel="Accuracy")
        legend = ax.legend(title="ECE (%)", loc="upper center", bbox_to_anchor=(0.5, -0.22),
                           frameon=False)  # fmt: skip
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([25.0])
    return Drawing(
        "calibration",
        "Calibration",
        "Accuracy against the confidence of the predicted class, in 15 bins, all seeds together. "
        "On the diagonal confidence is honest; below it the model is too sure. A larger mark "
        "stands for more images. ECE: expected calibration error.",
        figure,
    )


def draw_confusion(summary: Summary) -> Drawing:
    """Draw confusion matrices in percent of each true class, a row a data set and four models."""
    columns = min(GRID_COLUMNS, len(summary.models))
    rows = -(-len(summary.models) // columns)
    heights = [max(2, len(one.classes)) for one in summary.sets for _ in range(rows)]
    width = (0.34 * max(heights) + 1.5) * columns
    figure = Figure(figsize=(width, sum(0.34 * max(3, h) + 1.4 for h in heights)))
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for block, one in zip(axes.reshape(len(summary.sets), -1), summary.sets, strict=True):
        for ax in block[len(summary.models) :]:
            ax.set_visible(False)
        for ax, model in zip(block, summary.models, strict=False):
            _draw_confusion(ax, confusion_shares(one.probabilities[model], one.labels), one)
            ax.set_title(f"{one.name}\n{shorten_name(model, 26)}")
    return Drawing(
        "confusion",
        "Confusion matrices",
        "Percent of each true class, all seeds together; the diagonal holds the recalls, whose "
        "mean is the balanced accuracy. A dash marks a class without a test image.",
        figure,
    )


def _draw_confusion(ax: Axes, shares: FloatArray, one: ScoredSet) -> None:
    ax.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), share in np.ndenumerate(shares):
        text = "–" if np.isnan(share) else f"{100 * share:.0f}"
        ax.text(predicted, true, text, ha="center", va="center",
                color="white" if share > 0.7 else "black",
                fontweight="bold" if true == predicted else "normal")  # fmt: skip
    names = [shorten_name(name) for name in one.classes]
    rotation = 40 if max(map(len, names)) > 6 or len(names) > 5 else 0
    ax.set_xticks(range(len(names)), names, rotation=rotation, ha="right" if rotation else "center")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(True)
    ax.set(xlabel="Predicted", ylabel="True")


def draw_all(
    summary: Summary, efficiency: Sequence[EfficiencyPoint] = (), word: str = ""
) -> Iterator[Drawing]:
    """Draw every figure that the numbers allow, one at a time; arguments as of each."""
    with rc_context(STYLE):
        if summary.pairs:
            yield draw_changes(summary)
        yield draw_scores(summary)
        if not math.isnan(summary.critical):
            yield draw_ranks(summary)
        if efficiency:
            yield draw_efficiency(efficiency, summary.metric, word)
        if summary.kind in ("classes", "ordinal"):
            yield from (draw_calibration(summary), draw_confusion(summary))
