"""The evaluation of a test split: metrics, recall of each class, bootstrap intervals, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from retfiner.common.bootstrap import FloatArray, Units, count_units, resample
from retfiner.common.errors import InputError, shorten
from retfiner.common.metrics import METRICS, WeightedSample, interval_of, make_sample

SCORED = {name: metric.of for name, metric in METRICS.items() if not metric.ordered}
"""Those that need no ordered classes, by name."""


def evaluate(
    probabilities: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    generator: np.random.Generator,
    patients: Sequence[str] | None = None,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Score a test split: every metric, recall of each class, and bootstrap intervals of 95 %.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,), in 0..C-1.
        classes: C names in the order of the columns; the union over the splits, so that a class
            missing from this one keeps its column.
        generator: Draws the resamples.
        patients: (N,) whose images are drawn together; None draws every image by itself.
        resamples: How many; 0 leaves the intervals out.

    Returns:
        ``values``, ``intervals`` (a pair, or None where undefined),
        ``recall`` and ``support`` by class, ``bootstrap`` (how it was done), ``notes`` (sentences
        on whatever a reader must know, such as an absent class).

    Raises:
        InputError: If the predictions cannot be scored, or names and columns differ in number.
    """
    sample = make_sample(probabilities, labels)
    if len(classes) != sample.n_classes or len(set(classes)) != len(classes):
        raise InputError(
            "Class names and columns of the predictions differ.",
            got=f"{len(classes)} names ({shorten(list(classes))}), {sample.n_classes} columns",
            expected="one distinct name for each column",
        )
    values = {name: _finite(metric(sample)[0]) for name, metric in SCORED.items()}
    absent = [name for name, count in zip(classes, sample.support[0], strict=True) if count == 0]
    intervals, bootstrap, notes = _bootstrap(sample, generator, patients, resamples)
    if absent:
        notes.insert(
            0,
            f"No test image of {shorten(absent)}: recall, AUROC and average precision of the class "
            "do not exist, and averages run over the classes that are present.",
        )
    if values["auroc"] is None:
        notes.insert(0, "All test images share one class, so that AUROC does not exist.")
    return {
        "values": values,
        "intervals": intervals,
        "recall": dict(zip(classes, map(_finite, sample.recall[0]), strict=True)),
        "support": dict(zip(classes, map(int, sample.support[0]), strict=True)),
        "bootstrap": bootstrap,
        "notes": notes,
    }


def _finite(value: float) -> float | None:
    """Turn NaN into None, which JSON can hold."""
    return float(value) if np.isfinite(value) else None


def _bootstrap(
    sample: WeightedSample,
    generator: np.random.Generator,
    patients: Sequence[str] | None,
    resamples: int,
) -> tuple[dict[str, list[float] | None], dict[str, Any], list[str]]:
    """Draw the resamples; return intervals, how they were made, and notes.

    A resample without any image of a class that the test split has estimates something else (a
    mean over fewer classes). It is left out and counted; where most are, no interval is given.
    """
    draws, kept = resample_metrics(sample, generator, patients, resamples)
    units = count_units(len(sample.labels), patients)
    bootstrap = {
        "resamples": resamples,
        "used": kept,
        "unit": "image" if patients is None else "patient",
        "units": units,
    }
    notes = []
    if kept < resamples:
        notes.append(
            f"{resamples - kept} of {resamples} bootstrap resamples lacked a class of the test "
            "split and were left out of the intervals."
        )
    intervals: dict[str, list[float] | None] = dict.fromkeys(SCORED)
    if units < 2 or kept * 2 <= resamples:
        if resamples:
            notes.append("Too few patients or images a class for a bootstrap interval.")
        return intervals, bootstrap, notes
    owned = set(zip(sample.labels.tolist(), patients or range(len(sample.labels)), strict=True))
    of_classes = list(Counter(label for label, _ in owned).values())
    for name, drawn in draws.items():
        value = float(SCORED[name](sample)[0])
        ends = interval_of(name, value, drawn, [Units(units, of_classes)])
        intervals[name] = None if ends is None else list(ends)
    return intervals, bootstrap, notes


def resample_metrics(
    sample: WeightedSample,
    generator: np.random.Generator,
    patients: Sequence[str] | None,
    resamples: int,
) -> tuple[dict[str, FloatArray], int]:
    """Compute every metric on resamples of patients, or of images where patients are not known.

    Returns:
        For each metric, its values on the resamples that hold every class of the sample; and the
        number of those.

    Raises:
        InputError: If there is not one patient for each image.
    """
    n = len(sample.labels)
    if patients is not None and len(patients) != n:
        raise InputError("Patients do not fit the labels.", got=len(patients), expected=n)
    present = sample.support[0] > 0

    def metrics_of(weights: FloatArray) -> FloatArray:
        drawn = WeightedSample(sample.probabilities, sample.labels, weights)
        complete = (drawn.support[:, present] > 0).all(axis=1)
        return np.stack([complete, *(metric(drawn) for metric in SCORED.values())])

    complete, *drawn = resample(metrics_of, n, patients, resamples, generator)
    kept = complete > 0
    return {name: values[kept] for name, values in zip(SCORED, drawn, strict=True)}, int(kept.sum())
