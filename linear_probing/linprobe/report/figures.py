"""All figures of a report: each draws numbers already computed, and says what it shows.

None belongs to a window or to pyplot's global state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from linprobe.report.curves import (
    FALSE_POSITIVE_RATES,
    average_roc,
    choose_images,
    confusion_shares,
    feature_map,
    reliability,
)
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
from retfiner.common.metrics import ALL_METRICS

COLUMN = 3.5
"""Width in inches of a column of print; panels beside one another take a page's two."""
GRID_COLUMNS = 4
FEWEST_MAPPED = 10
"""With fewer images a map shows nothing."""


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
        "Compared model minus base, seeds averaged. Line: 95 % bootstrap interval by patient. "
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
    names = [*(one.name for one in summary.sets), MEAN][::-1]
    figure = Figure(figsize=(COLUMN, 0.3 * len(names) + 0.9))
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
    figure = Figure(figsize=(COLUMN, 3.0))
    ax = figure.subplots()
    models = list(dict.fromkeys(point.model for point in points))
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
        "bootstrap interval by patient. Marks are set slightly apart to be told apart.",
        figure,
    )


def _panels(summary: Summary, legend: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Make a square panel for each data set, with so many inches for a legend below it."""
    n = len(summary.sets)
    columns = min(GRID_COLUMNS, n)
    figure = Figure(figsize=(2.4 * columns + 0.4, (2.4 + legend) * -(-n // columns) + 0.2))
    axes = grid(figure, n, columns)
    for ax, one in zip(axes, summary.sets, strict=True):
        ax.plot([0, 1], [0, 1], color=LIGHT, linewidth=1, zorder=0)
        ax.set(xlim=(-0.02, 1.03), ylim=(-0.02, 1.03), aspect="equal", title=one.name)
    return figure, axes


def draw_roc(summary: Summary) -> Drawing:
    """Draw the mean ROC curves."""
    figure, axes = _panels(summary)
    for ax, one in zip(axes, summary.sets, strict=True):
        for index, model in enumerate(summary.models):
            traced = [average_roc(table, one.labels) for table in one.probabilities[model]]
            known = [curve for curve in traced if curve is not None]
            if known:
                label = f"{shorten_name(model)} {one.values('auroc', model).mean():.1f}"
                rates = (np.append(0.0, curve) for curve in (FALSE_POSITIVE_RATES,
                                                             np.mean(known, axis=0)))  # fmt: skip
                ax.plot(*rates, label=label, **model_style(index) | {"marker": ""})
        ax.set(xlabel="False positive rate", ylabel="True positive rate")
        ax.legend(title="AUROC (%)", fontsize=SMALL - 1, loc="lower right")
    return Drawing(
        "roc",
        "ROC curves",
        "One class against the rest, averaged over classes by their number of test images and over "
        "seeds. The area below is the weighted AUROC.",
        figure,
    )


def draw_calibration(summary: Summary) -> Drawing:
    """Draw accuracy against confidence."""
    figure, axes = _panels(summary, 0.18 * (2 + len(summary.models)))
    for ax, one in zip(axes, summary.sets, strict=True):
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
    """Draw confusion matrices in percent of each true class, a row a data set."""
    heights = [max(2, len(one.classes)) for one in summary.sets]
    width = (0.34 * max(heights) + 1.5) * len(summary.models)
    figure = Figure(figsize=(width, sum(0.34 * max(3, h) + 1.4 for h in heights)))
    axes = figure.subplots(len(heights), len(summary.models), squeeze=False, height_ratios=heights)
    for row, one in zip(axes, summary.sets, strict=True):
        for ax, model in zip(row, summary.models, strict=True):
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


def draw_values(summary: Summary) -> Drawing:
    """Draw predicted against true values."""
    n = len(summary.models)
    figure = Figure(figsize=(2.6 * n + 0.4, 2.6 * len(summary.sets)))
    axes = figure.subplots(len(summary.sets), n, squeeze=False)
    for row, one in zip(axes, summary.sets, strict=True):
        ends = [one.labels.min(), one.labels.max()]
        for ax, (index, model) in zip(row, enumerate(summary.models), strict=True):
            ax.plot(ends, ends, color=LIGHT, linewidth=1, zorder=0)
            predicted = one.probabilities[model].mean(axis=0)[:, 0]
            ax.plot(one.labels, predicted, alpha=0.7, markersize=3,
                    **model_style(index) | {"linestyle": "none"})  # fmt: skip
            told = f"R² {one.values('r2', model).mean():.2f}"
            ax.set(xlabel=f"True {one.classes[0]}", ylabel="Predicted")
            ax.set_title(f"{one.name}\n{shorten_name(model, 26)}, {told}")
    return Drawing(
        "values",
        "Predicted values",
        "Predicted against true value of each, the mean over seeds; on the line both are the same. "
        "Predictions that hardly differ from one another were drawn to the mean.",
        figure,
    )


def draw_maps(
    summary: Summary, features: dict[tuple[str, str], FloatArray], points: int, seed: int
) -> Drawing | None:
    """Draw maps of the features of the test images, a row a data set; None where there are none.

    ``features`` are (N, F) by model and data set, in the order of the images; ``points`` the most
    images on a map, 0 for no map; ``seed`` is of the choice of images and of t-SNE.
    """
    mapped = [
        one
        for one in summary.sets
        if points and len(one.images) >= FEWEST_MAPPED
        and all((model, one.name) in features for model in summary.models)
    ]  # fmt: skip
    if not mapped:
        return None
    n = len(summary.models)
    figure = Figure(figsize=(3.0 * n + 1.4, 2.9 * len(mapped)))
    axes = figure.subplots(len(mapped), n, squeeze=False)
    for row, one in zip(axes, mapped, strict=True):
        chosen = choose_images(len(one.images), points, np.random.default_rng(seed))
        for ax, model in zip(row, summary.models, strict=True):
            laid_out = feature_map(features[model, one.name][chosen], seed)
            for index, label in enumerate(one.classes):
                own = laid_out[one.labels[chosen] == index]
                ax.scatter(*own.T, s=14, linewidth=0.4, edgecolor="white",
                           label=shorten_name(label), **class_style(index))  # fmt: skip
            ax.set(xticks=[], yticks=[], title=f"{one.name}\n{shorten_name(model, 26)}")
            ax.spines[:].set(visible=True, color=LIGHT)
        row[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return Drawing(
        "map",
        "Map of the features",
        f"Frozen features of the test images (at most {points}) in two dimensions by t-SNE. Look "
        "for classes that lie apart; sizes of groups and distances between far groups mean "
        "nothing.",
        figure,
    )


def draw_all(
    summary: Summary,
    efficiency: Sequence[EfficiencyPoint],
    word: str,
    features: dict[tuple[str, str], FloatArray],
    map_points: int,
    seed: int,
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
            yield from (draw_calibration(summary), draw_confusion(summary), draw_roc(summary))
        elif summary.kind == "regression":
            yield draw_values(summary)
        maps = draw_maps(summary, features, map_points, seed)
        if maps is not None:
            yield maps
