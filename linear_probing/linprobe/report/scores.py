"""What several models score on one data set, from their predictions alone.

All models are scored on the same images, resampled together, so that every difference is paired.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from linprobe.statistics import FloatArray, swap_test
from retfiner.common.bootstrap import Units, resample
from retfiner.common.errors import InputError, shorten
from retfiner.common.metrics import ALL_METRICS, VALUE_METRICS, Sample, per_class, weighted
from retfiner.common.patients import GROUPS
from retfiner.common.predictions import PROBABILITY, classes_of, task_of, truth_of

UNITS = ("patient", "volume", "image")
"""What is drawn in a resample: the first of these that is known."""


@dataclass(frozen=True)
class ScoredSet:
    """Predictions of several models on the N test images of one data set.

    Attributes:
        name: Of the data set.
        kind: What is predicted, a key of ``MAIN_METRIC``.
        classes: C names; in the order of the scale, where they form one (``ordered``).
        images: (N,) names.
        labels: (N,) indices into ``classes``, or values; (N, C) of 0 and 1 for several an image.
        units: (N,) names of what is drawn together: patients as far as they are known.
        unit: What most of these are: patient, volume, or image.
        without_patient: How many images have no patient and are drawn by volume or by themselves.
        probabilities: By model, (S, N, C) of its S seeds, or of one where nothing is random.
        trained_on: By model, how many patients (images, where unknown) it was trained on, with
            that word; None where that is not known.
        groups: By sex, age, device and so on, as far as they are known: (N,) what each is of.
    """

    name: str
    classes: list[str]
    ordered: bool
    images: list[str]
    labels: NDArray[Any]
    units: list[str]
    unit: str
    without_patient: int
    probabilities: dict[str, FloatArray]
    trained_on: dict[str, tuple[float, str] | None]
    groups: dict[str, list[str]] = field(default_factory=dict)
    kind: str = "classes"

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(set(self.units))

    @property
    def drawn(self) -> Units:
        """Number of units in all and of each class, as intervals need them."""
        return Units(self.n_units, self.units_of_classes)

    @property
    def units_of_classes(self) -> list[int]:
        """Number of units with an image of each class, of those that the test set has.

        Of several labels an image, those with and without the rarest; of values, all units.
        """
        if self.kind == "regression":
            return [self.n_units]
        columns = self.labels.T if self.kind == "multilabel" else [self.labels]
        owned = (set(zip(column.tolist(), self.units, strict=True)) for column in columns)
        return min(sorted(Counter(label for label, _ in pairs).values()) for pairs in owned)

    def counts_of_classes(self) -> list[int]:
        """Number of images of each class, or with each label."""
        return self._one_hot().sum(axis=0).astype(int).tolist()

    def _one_hot(self) -> FloatArray:
        """(N, C) of 0 and 1: which classes, or labels, each image has."""
        if self.kind == "multilabel":
            return self.labels.astype(np.float64)
        return np.eye(len(self.classes))[self.labels]

    def exists(self, metric: str) -> bool:
        """Say whether a metric has a meaning: an ordered one needs ordered classes."""
        if (metric in VALUE_METRICS) != (self.kind == "regression"):
            return False
        ordered = self.ordered or (len(self.classes) == 2 and self.kind == "classes")
        return ordered or not ALL_METRICS[metric].ordered

    def values(self, metric: str, model: str) -> FloatArray:
        """Give (S,) values of a metric as it is shown (percent for a share); NaN if undefined."""
        if not self.exists(metric):
            return np.full(len(self.probabilities[model]), np.nan)
        once = np.ones((1, len(self.labels)))
        samples = (self.sample(table, once) for table in self.probabilities[model])
        return np.array([ALL_METRICS[metric].shown(sample)[0] for sample in samples])

    def sample(self, outputs: FloatArray, weights: FloatArray) -> Sample:
        """Weigh (N, C) outputs, as what they are predictions of."""
        return weighted(self.kind, outputs, self.labels, weights)

    def observed(self, metrics: Sequence[str], model: str) -> dict[str, float]:
        """Give metrics on the images themselves, averaged over seeds; names as in `draws`."""
        once = np.ones((1, len(self.labels)))
        return {name: float(v[0]) for name, v in self._means(metrics, model, once).items()}

    def draws(
        self, metrics: Sequence[str], resamples: int, generator: np.random.Generator
    ) -> dict[str, dict[str, FloatArray]]:
        """Compute metrics as :meth:`drawn_and_kept` does, and give the values alone."""
        return self.drawn_and_kept(metrics, resamples, generator)[0]

    def drawn_and_kept(
        self, metrics: Sequence[str], resamples: int, generator: np.random.Generator
    ) -> tuple[dict[str, dict[str, FloatArray]], NDArray[np.bool_]]:
        """Compute metrics, averaged over seeds, on resamples of the units, the same for all models.

        Resamples without an image of a class that the test set has estimate something else (a mean
        over fewer classes), and are left out. ``metrics`` are keys of ``METRICS``, or
        ``<key of PER_CLASS>/<class>``. Gives values (R,), as shown, by metric and model; and
        (resamples,), which of them these are.
        """
        there = np.ones((len(self.units), 1)) if self.kind == "regression" else self._one_hot()
        if self.kind == "multilabel":
            there = np.concatenate([there, 1 - there], axis=1)
        there = there[:, there.any(axis=0)]
        names = [(metric, model) for metric in metrics for model in self.probabilities]

        def of(weights: FloatArray) -> FloatArray:
            by_model = {model: self._means(metrics, model, weights) for model in self.probabilities}
            complete = (weights @ there > 0).all(axis=1)
            return np.stack([complete, *(by_model[model][metric] for metric, model in names)])

        complete, *drawn = resample(of, len(self.labels), self.units, resamples, generator)
        kept = complete > 0
        values = dict(zip(names, drawn, strict=True))
        models = self.probabilities
        return {m: {model: values[m, model][kept] for model in models} for m in metrics}, kept

    def _means(
        self, metrics: Sequence[str], model: str, weights: FloatArray
    ) -> dict[str, FloatArray]:
        """Average metrics over a model's seeds, for each row of weights."""
        sums: dict[str, FloatArray] = {}
        for table in self.probabilities[model]:
            sample = self.sample(table, weights)
            of_class: dict[str, FloatArray] = {}
            for kind in {name.partition("/")[0] for name in metrics if "/" in name}:
                columns = zip(self.classes, 100 * per_class(kind, sample).T, strict=True)
                of_class |= {f"{kind}/{label}": column for label, column in columns}
            for name in metrics:
                value = of_class[name] if name in of_class else ALL_METRICS[name].shown(sample)
                sums[name] = sums.get(name, 0.0) + value / len(self.probabilities[model])
        return sums

    def p_value(
        self, metric: str, pair: tuple[str, str], swaps: int, generator: np.random.Generator
    ) -> float:
        """Test whether two models are exchangeable on these units; NaN where undefined."""
        if not np.isfinite(self.values(metric, pair[0])).all():
            return math.nan
        first, second = (self.probabilities[model] for model in pair)
        pairs = np.lcm(len(first), len(second))
        of, unit = ALL_METRICS[metric].on, np.unique(self.units, return_inverse=True)[1]
        twice = np.concatenate([self.labels, self.labels])

        def change(swapped: FloatArray) -> FloatArray:
            away = swapped[:, unit]
            total = np.zeros(len(swapped))
            for k in range(pairs):
                both = np.concatenate([first[k % len(first)], second[k % len(second)]])
                here, there = (
                    of(weighted(self.kind, both, twice, np.concatenate(weights, axis=1)))
                    for weights in ((1 - away, away), (away, 1 - away))
                )
                total += there - here
            return total / pairs

        return swap_test(change, self.n_units, swaps, generator, images=len(twice))


def scored_set(table: pd.DataFrame, order: Sequence[str] = ()) -> ScoredSet:
    """Line up the predictions of several models on one data set.

    ``table`` holds the rows of one data set and one share of the training images; ``name`` tells
    models. ``order`` are its classes as an ordered scale, where they are one.

    Raises:
        InputError: If models were tested on different images, labels or classes.
    """
    data_set, kind = str(table["data_set"].iloc[0]), task_of(table)
    classes = _ordered(data_set, classes_of(table), order)
    if kind == "ordinal":
        classes = sorted(classes, key=float)
    columns = [f"{PROBABILITY}{name}" for name in classes]
    firsts: list[pd.DataFrame] = []
    probabilities, trained_on = {}, {}
    for name, rows in table.groupby("name", sort=False):
        by_seed = [part.sort_values("image") for _, part in rows.groupby("seed")]
        firsts.append(by_seed[0])
        for part in by_seed:
            _check_same(data_set, firsts[0], part, columns)
        scores = np.stack([part[columns].to_numpy(np.float64) for part in by_seed])
        if all(np.array_equal(scores[0], other) for other in scores):
            scores = scores[:1]  # nothing is random about it, and it counts once
        probabilities[str(name)] = scores
        trained_on[str(name)] = _trained_on(rows)
    reference = max(firsts, key=lambda part: tuple((part[name] != "").sum() for name in UNITS[:2]))
    for part in firsts:
        _check_patients(data_set, reference, part)
    units, unit, without = _units(reference)
    groups: dict[str, list[str]] = {}
    for name in (name for name in GROUPS if name in table):
        known = [part[name].fillna("").astype(str).tolist() for part in firsts]
        fullest = max(known, key=lambda values: sum(map(bool, values)))
        groups |= {name: fullest} if any(fullest) else {}
    return ScoredSet(
        data_set, classes, bool(order) or kind == "ordinal", reference["image"].tolist(),
        truth_of(reference, classes), units, unit, without, probabilities, trained_on,
        groups, kind,
    )  # fmt: skip


def _ordered(data_set: str, classes: list[str], order: Sequence[str]) -> list[str]:
    if order and sorted(order) != sorted(classes):
        raise InputError(
            f"--ordered does not name the classes of {data_set}",
            got=", ".join(order),
            expected=f"all of {', '.join(classes)}, from the least to the most",
        )
    return list(order) or classes


def _check_same(
    data_set: str, one: pd.DataFrame, other: pd.DataFrame, columns: Sequence[str]
) -> None:
    same = one["image"].tolist() == other["image"].tolist()
    same = same and one["label"].tolist() == other["label"].tolist()
    if not same or other[list(columns)].isna().any(axis=None):
        raise InputError(
            f"Test images of {data_set} differ between {_who(one)} and {_who(other)}",
            got=f"{len(other)} images of {shorten(sorted(set(other['label'])))}",
            expected=f"the {len(one)} of {_who(one)}, with the same labels and classes",
            remedy="probe both models on the same data",
        )


def _check_patients(data_set: str, one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse models whose tables group the images by patient differently, under any names."""
    pairs = zip(one["patient"], other["patient"], strict=True)
    both = {pair for pair in pairs if all(pair)}
    if any(len(set(names)) < len(both) for names in zip(*both, strict=True)):
        raise InputError(
            f"Patients of {data_set} differ between {_who(one)} and {_who(other)}",
            expected="the same images of each patient, whatever it is called",
            remedy="correct the column patient of one, or leave it empty: others' are taken then",
        )


def _who(rows: pd.DataFrame) -> str:
    return f"{rows['name'].iloc[0]}, seed {rows['seed'].iloc[0]}"


def _units(rows: pd.DataFrame) -> tuple[list[str], str, int]:
    """Say what each image is drawn with: its patient, else its volume, else nothing."""
    names = rows[list(UNITS)].to_numpy(str)
    kinds = (names != "").argmax(axis=1)
    units = [f"{UNITS[kind]} {row[kind]}" for kind, row in zip(kinds, names, strict=True)]
    return units, UNITS[int(np.bincount(kinds).argmax())], int((kinds > 0).sum())


def _trained_on(rows: pd.DataFrame) -> tuple[float, str] | None:
    """Average the number of patients, or images, that a model's seeds were trained on."""
    for column, word in (("train_patients", "patients"), ("train_images", "images")):
        counts = rows.groupby("seed")[column].first()
        if (counts >= 0).all():
            return float(counts.mean()), word
    return None
