"""From one data set to another: what becomes of scores, calibration and the operating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from linprobe.report import tables as lay
from linprobe.report.scores import ScoredSet
from linprobe.report.summary import Summary
from linprobe.report.tables import Line, Table
from retfiner.common.bootstrap import FloatArray, bootstrap_interval, resample
from retfiner.common.metrics import ALL_METRICS, SPECIFICITY, WeightedSample
from retfiner.common.seeds import derive_seed


def thresholds(probabilities: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
    """Find for each class the lowest threshold whose specificity is :data:`SPECIFICITY` or more.

    Of (N, C) probabilities and (N,) labels it gives (C,): an image counts as of the class from
    there on. Infinity where no score of the images will do, or all are of the class.
    """
    found = np.full(probabilities.shape[1], np.inf)
    for index, scores in enumerate(probabilities.T):
        others = np.sort(scores[labels != index])[::-1]
        if len(others):
            highest_refused = others[int((1 - SPECIFICITY + 1e-9) * len(others))]
            found[index] = scores[scores > highest_refused].min(initial=np.inf)
    return found


def at_thresholds(limits: FloatArray, sample: WeightedSample) -> tuple[FloatArray, FloatArray]:
    """Give sensitivity and specificity at (C,) thresholds, (R,) each in percent.

    One class against the rest, averaged over classes by support. Of a resample of one class alone
    no specificity exists: NaN.
    """
    called = sample.probabilities >= limits
    truth = np.eye(sample.n_classes)[sample.labels]
    positive, negative = sample.weights @ truth, sample.weights @ (1 - truth)
    hits, spared = sample.weights @ (called * truth), sample.weights @ (~called * (1 - truth))
    total = positive.sum(axis=1)
    sensitivity = hits.sum(axis=1) / total
    shares = np.divide(spared, negative, out=np.full_like(spared, np.nan), where=negative > 0)
    return 100 * sensitivity, 100 * (shares * positive).sum(axis=1) / total


def transferred(
    here: ScoredSet, there: ScoredSet, model: str, resamples: int, generator: np.random.Generator
) -> list[tuple[float, lay.Interval]]:
    """Take a model's thresholds from one set to another: sensitivity and specificity there.

    Averaged over seeds, with intervals by the other set's patients; the thresholds stand.
    """
    order = [here.classes.index(name) for name in there.classes]
    limits = [thresholds(table, here.labels)[order] for table in here.probabilities[model]]
    tables = there.probabilities[model]
    seeds = range(max(len(limits), len(tables)))  # one where nothing turned out to be random
    pairs = [(limits[k % len(limits)], tables[k % len(tables)]) for k in seeds]

    def of(weights: FloatArray) -> FloatArray:
        values = [at_thresholds(t, WeightedSample(p, there.labels, weights)) for t, p in pairs]
        return np.mean(values, axis=0)

    values = of(np.ones((1, len(there.labels))))[:, 0]
    drawn = resample(of, len(there.labels), there.units, resamples, generator)
    moved = zip(values, drawn, strict=True)
    return [
        (float(value), bootstrap_interval(draws[np.isfinite(draws)], [there.drawn]))
        for value, draws in moved
    ]


def transfer_tables(
    inner: Summary | None,
    outer: Summary,
    train_sets: dict[str, str],
    resamples: int,
    seed: int,
    marks: dict[str, str] | None = None,
) -> list[Table]:
    """Lay out external validation: the comparison, and for each data set what changes on the way.

    ``inner`` are the data sets that were trained on, as far as they were tested on as well;
    ``train_sets`` says which of them belongs to which of ``outer``; ``marks`` point to notes.
    """
    main = lay.main_table(outer, marks or {})
    lines = [line for line in main.lines if line.kind != "mean"]
    note = "Holm's correction is over the rows of this table."
    results = replace(
        main,
        title="External validation",
        lines=lines,
        notes=[note, *lay.warnings(outer, means=False)],
    )
    known = {} if inner is None else {one.name: one for one in inner.sets}
    tables = [] if inner is None else [results]  # else it is the main table
    for there in outer.sets:
        here = known.get(train_sets.get(there.name, ""))
        if inner is not None and here is not None and {*here.classes} == {*there.classes}:
            rng = np.random.default_rng(derive_seed(seed, "transfer", there.name))
            lines = []
            for model in outer.models:
                lines += _lines(inner, outer, here, there, model, resamples, rng)
            tables.append(_table(here.name, there.name, there.unit, lines))
    return tables


def _lines(
    inner: Summary, outer: Summary, here: ScoredSet, there: ScoredSet, model: str,
    resamples: int, generator: np.random.Generator,
) -> list[Line]:  # fmt: skip
    rows = [
        (ALL_METRICS[metric].axis, _told(inner, here.name, model, metric),
         _told(outer, there.name, model, metric))
        for metric in dict.fromkeys((outer.metric, "ece"))
    ]  # fmt: skip
    moved = transferred(here, there, model, resamples, generator)
    found = [lay.with_interval(*one) for one in moved]
    inside = here.values("sensitivity", model).mean()
    rows += [("Sensitivity (%) at the threshold of inside", f"{inside:.1f}", found[0]),
             ("Specificity (%) there", f"≥ {100 * SPECIFICITY:.0f}", found[1])]  # fmt: skip
    heading = Line((model,), "heading")
    return [heading, *map(Line, rows)]


def _told(summary: Summary, data_set: str, model: str, metric: str) -> str:
    rows = summary.metrics
    rows = rows[(rows["data_set"] == data_set) & (rows["model"] == model)]
    [row] = rows[(rows["metric"] == metric) & (rows["class"] == "")].itertuples()
    digits = ALL_METRICS[metric].digits - 1
    return lay.with_interval(row.value, (row.low, row.high), False, digits)


def _table(here: str, there: str, unit: str, lines: Sequence[Line]) -> Table:
    other = there.removeprefix(f"{here}_to_")
    limit = f"{100 * SPECIFICITY:.0f} % specificity"
    return Table(
        f"From {here} to {other}",
        f"Score, calibration and operating point on the test images of {here} (inside) and of "
        f"{other} (outside). Thresholds, one a class, are those of {limit} inside.",
        ("Model", "Inside", "Outside"),
        list(lines),
        ["Sensitivity and specificity: one class against the rest, averaged by support and over "
         f"seeds. Intervals by {unit}, the thresholds held."],
    )  # fmt: skip
