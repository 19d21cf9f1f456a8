"""All figures of a report, from paired runs: what is computed here is drawn by the plots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from linprobe.report import panels, plots
from linprobe.report.comparison import Pair, Place
from linprobe.report.curves import (
    average_roc,
    choose_images,
    confusion_shares,
    feature_map,
    reliability,
)
from linprobe.report.style import new_figure
from linprobe.report.summary import FloatArray, Row, metric_value, paired_values
from retfiner.common.results import METRIC_INFO, Run, read_run

FEWEST_MAPPED = 10
"""With fewer images a map shows nothing."""


def file_stem(name: str) -> str:
    """Turn a pair's name into the stem of a file: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "pair"


@dataclass(frozen=True)
class Drawing:
    """A figure with what is said about it.

    Attributes:
        name: Stem of its files.
        title: Heading.
        caption: What it shows and how it was made.
        figure: The figure.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def draw_all(
    pairs: Sequence[Pair], rows: Sequence[Row], metric: str, map_points: int, seed: int
) -> Iterator[Drawing]:
    """Draw every figure that the runs allow, one at a time.

    Args:
        pairs: Paired runs.
        rows: Rows of the main table.
        metric: The metric of the main table.
        map_points: Most images on a map of the features; 0 for no map.
        seed: Of the map's choice of images and of t-SNE.
    """
    yield draw_change(rows, metric)
    efficiency = draw_efficiency(pairs, metric)
    if efficiency is not None:
        yield efficiency
    for pair in pairs:
        yield from (draw_roc(pair), draw_confusion(pair), draw_reliability(pair))
        mapped = draw_map(pair, map_points, seed)
        if mapped is not None:
            yield mapped


def draw_change(rows: Sequence[Row], metric: str) -> Drawing:
    """Draw the change on each data set, for every pair."""
    info = METRIC_INFO[metric]
    n_pairs = len({row.pair for row in rows})
    columns = min(plots.COLUMNS, n_pairs)
    tallest = max(sum(row.pair == other.pair for other in rows) for row in rows)
    height = (0.42 * tallest + 0.9) * -(-n_pairs // columns)
    unit = f"Change in {info.label.lower() if info.label[1].islower() else info.label}"
    unit += " (points)" if info.scale == 100 else ""
    figure = plots.plot_change(new_figure(1.2 + 3.0 * columns, height), rows, unit)
    return Drawing(
        "change",
        "Change on each data set",
        "Refined minus base. Square: mean over seeds; diamond: mean over data sets; line: 95 % "
        "t interval over seeds, which holds the chance of training alone, not that of drawing "
        "other patients; ticks: single seeds. Stars: exact Wilcoxon test, * p<0.05, ** p<0.01, "
        f"*** p<0.001. {'More' if info.higher_is_better else 'Less'} is better.",
        figure,
    )


def draw_efficiency(pairs: Sequence[Pair], metric: str) -> Drawing | None:
    """Draw the metric against the share of the training images; None where only one was used."""
    built = [_efficiency_panel(pair, metric) for pair in pairs if len(pair.runs) > 1]
    drawn = [panel for panel in built if panel is not None]
    if not drawn:
        return None
    info = METRIC_INFO[metric]
    label = f"{info.label}{' (%)' if info.scale == 100 else ''}"
    columns = min(plots.COLUMNS, len(drawn))
    size = new_figure(1 + 2.9 * columns, 0.3 + 2.9 * -(-len(drawn) // columns))
    figure = plots.plot_efficiency(size, drawn, label)
    return Drawing(
        "label_efficiency",
        "Label efficiency",
        "Mean over the data sets that were probed at every share of the training images; bars: "
        "standard deviation over seeds. Marks are set slightly apart to be told apart.",
        figure,
    )


def _efficiency_panel(pair: Pair, metric: str) -> plots.EfficiencyPanel | None:
    """Average over the data sets and seeds that are there at every share."""
    shared: set[Place] = set.intersection(*(set(places) for places in pair.runs.values()))
    data_sets = sorted({data_set for data_set, _ in shared})
    seeds = sorted({seed for _, seed in shared})
    complete = [s for s in seeds if all((name, s) in shared for name in data_sets)]
    if not complete:
        return None
    base: list[FloatArray] = []
    refined: list[FloatArray] = []
    fractions = sorted(pair.runs)
    for fraction in fractions:
        places = {place: pair.runs[fraction][place] for place in shared}
        values, _ = paired_values(places, metric)
        kept = sorted({data_set for data_set, _ in values})
        table = np.array([[values[(name, s)] for name in kept] for s in complete]).mean(axis=1)
        base.append(table[:, 0])
        refined.append(table[:, 1])
    return plots.EfficiencyPanel(pair.name, fractions, base, refined)


def _by_data_set(pair: Pair) -> Iterator[tuple[str, list[Run], list[Run]]]:
    """Yield each data set with its base and its refined runs, one a seed."""
    for data_set in pair.data_sets:
        both = [pair.main[(data_set, seed)] for seed in pair.seeds(data_set)]
        yield data_set, [runs[0] for runs in both], [runs[1] for runs in both]


def draw_roc(pair: Pair) -> Drawing:
    """Draw the mean ROC curves of a pair."""
    drawn = []
    for data_set, *both in _by_data_set(pair):
        curves, areas = [], []
        for runs in both:
            traced = [average_roc(run.probabilities.astype(np.float64), run.labels) for run in runs]
            known = [curve for curve in traced if curve is not None]
            found = [metric_value(run, "auroc") for run in runs]
            if known:
                curves.append(np.mean(known, axis=0))
                areas.append(float(np.mean([area for area in found if area is not None])))
        if len(curves) == 2:
            drawn.append(panels.RocPanel(data_set, curves[0], curves[1], areas[0], areas[1]))
    return Drawing(
        f"roc_{file_stem(pair.name)}",
        f"ROC curves, {pair.name}",
        "One class against the rest, averaged over classes by their number of test images and over "
        "seeds. The area below is the weighted AUROC.",
        panels.plot_roc(_grid_figure(len(drawn)), drawn),
    )


def _grid_figure(n: int) -> Figure:
    columns = max(1, min(panels.GRID_COLUMNS, n))
    return new_figure(2.6 * columns + 0.4, 2.75 * max(1, -(-n // columns)) + 0.1)


def draw_confusion(pair: Pair) -> Drawing:
    """Draw the confusion matrices of a pair."""
    drawn = []
    for data_set, *both in _by_data_set(pair):
        shares = [
            confusion_shares(
                [run.probabilities.astype(np.float64) for run in runs], [run.labels for run in runs]
            )
            for runs in both
        ]
        drawn.append(panels.ConfusionPanel(data_set, both[0][0].classes, shares[0], shares[1]))
    height = sum(0.36 * max(3, len(panel.classes)) + 1.25 for panel in drawn)
    return Drawing(
        f"confusion_{file_stem(pair.name)}",
        f"Confusion matrices, {pair.name}",
        "Percent of each true class, all seeds together; the diagonal holds the recalls, whose "
        "mean is the balanced accuracy. A dash marks a class without a test image.",
        panels.plot_confusion(new_figure(7.2, height), drawn),
    )


def draw_reliability(pair: Pair) -> Drawing:
    """Draw the reliability diagrams of a pair."""
    drawn = []
    for data_set, *both in _by_data_set(pair):
        base, refined = (
            reliability(
                np.concatenate([run.probabilities for run in runs]),
                np.concatenate([run.labels for run in runs]),
            )
            for runs in both
        )
        drawn.append(panels.ReliabilityPanel(data_set, base, refined))
    return Drawing(
        f"reliability_{file_stem(pair.name)}",
        f"Reliability, {pair.name}",
        "Accuracy against the confidence of the predicted class, in 15 bins, all seeds together. "
        "On the diagonal confidence is honest; below it the model is too sure. A larger mark "
        "stands for more images. ECE: expected calibration error.",
        panels.plot_reliability(_grid_figure(len(drawn)), drawn),
    )


def draw_map(pair: Pair, map_points: int, seed: int) -> Drawing | None:
    """Draw the maps of a pair's features; None where the runs carry none, or none is wanted."""
    drawn = []
    for data_set, base, refined in _by_data_set(pair) if map_points else ():
        features = [_features(base), _features(refined)]
        if features[0] is None or features[1] is None or len(features[0]) < FEWEST_MAPPED:
            continue
        chosen = choose_images(len(features[0]), map_points, np.random.default_rng(seed))
        laid_out = [feature_map(table[chosen], seed) for table in features if table is not None]
        drawn.append(
            panels.MapPanel(
                data_set, base[0].classes, base[0].labels[chosen], laid_out[0], laid_out[1]
            )
        )
    if not drawn:
        return None
    return Drawing(
        f"map_{file_stem(pair.name)}",
        f"Map of the features, {pair.name}",
        f"Frozen features of the test images (at most {map_points}) in two dimensions by t-SNE. "
        "Look for classes that lie apart; sizes of groups and distances between far groups mean "
        "nothing.",
        panels.plot_map(new_figure(7.6, 3.1 * len(drawn)), drawn),
    )


def _features(runs: Sequence[Run]) -> FloatArray | None:
    """Read the features of the first seed that carries them; they are the same for every seed."""
    for run in runs:
        if run.folder is not None:
            features = read_run(run.folder).features
            if features is not None:
                return features.astype(np.float64)
    return None
