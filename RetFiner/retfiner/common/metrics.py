"""Metrics, all of them computed on weighted samples.

A bootstrap resample is the sample itself with each image counted zero, one or more times. So every
metric takes weights of shape (R, N), one row a resample, and returns R values at once; the value on
the sample itself is the case R = 1 with weights of one. There is one implementation to check.

To add a metric, write a function of a :class:`WeightedSample` and add a line to :data:`METRICS`;
one that exists for each class has a line in :data:`PER_CLASS`. Of several labels an image
(:class:`WeightedLabels`), each is scored alone and the scores are averaged. What scores predicted
values (:class:`WeightedValues`) is in :data:`VALUE_METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retfiner.common.bootstrap import FloatArray, Units, bootstrap_interval
from retfiner.common.errors import InputError

IntArray = NDArray[np.int64]
Kind = Literal["classes", "ordinal", "multilabel", "regression"]
"""What is predicted: one of some classes, a grade, several labels an image, or a value."""

ECE_BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al., 2017)."""
SPECIFICITY = 0.95
"""At which sensitivity is told."""
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Probabilities are clipped here before the logarithm: they are kept in single precision."""


@dataclass(frozen=True)
class WeightedSample:
    """Predictions on one split, and how often each resample counts each image.

    Attributes:
        probabilities: (N, C), rows sum to 1.
        labels: (N,), in 0..C-1.
        weights: (R, N), not negative.
    """

    probabilities: FloatArray
    labels: IntArray
    weights: FloatArray

    @property
    def n_classes(self) -> int:
        """Number of classes, also those without an image."""
        return self.probabilities.shape[1]

    @cached_property
    def confusion(self) -> FloatArray:
        """(R, C, C) weighted counts: true class, predicted class. A tie goes to the first class."""
        cell = self.labels * self.n_classes + self.probabilities.argmax(axis=1)
        one_hot = np.eye(self.n_classes**2)[cell]
        return (self.weights @ one_hot).reshape(-1, self.n_classes, self.n_classes)

    @cached_property
    def support(self) -> FloatArray:
        """(R, C) weighted number of images of each class."""
        return self.confusion.sum(axis=2)

    @cached_property
    def recall(self) -> FloatArray:
        """(R, C) share of each class that was found; NaN for a class without an image."""
        return _ratio(np.diagonal(self.confusion, axis1=1, axis2=2), self.support, undefined=np.nan)


@dataclass(frozen=True)
class WeightedLabels:
    """Predictions of L labels, of which an image may have several, and the images' weights.

    Each is scored by itself: whether it is there, and the scores are averaged.

    Attributes:
        probabilities: (N, L).
        labels: (N, L), 1 where an image has the label, else 0.
        weights: (R, N), not negative.
    """

    probabilities: FloatArray
    labels: IntArray
    weights: FloatArray

    @cached_property
    def each(self) -> list[WeightedSample]:
        """Each label alone, as two classes: absent and present."""
        pairs = zip(self.probabilities.T, self.labels.T, strict=True)
        return [WeightedSample(np.stack([1 - p, p], 1), truth, self.weights) for p, truth in pairs]

    @cached_property
    def known(self) -> dict[str, FloatArray]:
        """(R, L) values that were computed already, by key of :data:`PER_CLASS`."""
        return {}


@dataclass(frozen=True)
class WeightedValues:
    """Predictions (N,) of values (N,), and the images' weights (R, N)."""

    predictions: FloatArray
    values: FloatArray
    weights: FloatArray


Sample = WeightedSample | WeightedLabels | WeightedValues


def weighted(kind: str, outputs: FloatArray, truth: NDArray, weights: FloatArray) -> Sample:
    """Weigh predictions, (N, C) ``outputs`` of a kind of task, with (R, N) weights."""
    if kind == "regression":
        return WeightedValues(outputs[:, 0], truth, weights)
    return (WeightedLabels if kind == "multilabel" else WeightedSample)(outputs, truth, weights)


def _ratio(numerator: FloatArray, denominator: FloatArray, undefined: float) -> FloatArray:
    """Divide, with ``undefined`` where the denominator is zero."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), undefined)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Average (R, C) values over classes where they are defined; NaN where none is."""
    weights = np.where(np.isnan(values), 0.0, weights)
    return _ratio((np.nan_to_num(values) * weights).sum(axis=1), weights.sum(axis=1), np.nan)


def by_support(
    of_classes: Callable[[WeightedSample], FloatArray], sample: WeightedSample
) -> FloatArray:
    """Average (R, C) values of each class, where they exist, by support."""
    return _weighted_mean(of_classes(sample), sample.support)


def cross_entropy(sample: WeightedSample) -> FloatArray:
    """Mean negative log-likelihood in nats, without label smoothing."""
    likelihood = np.take_along_axis(sample.probabilities, sample.labels[:, None], axis=1)[:, 0]
    losses = -np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0))
    return _ratio(sample.weights @ losses, sample.weights.sum(axis=1), np.nan)


def balanced_accuracy(sample: WeightedSample) -> FloatArray:
    """Mean recall over the classes that have an image."""
    return _weighted_mean(sample.recall, (sample.support > 0).astype(np.float64))


def f1_of_classes(sample: WeightedSample, of: Sequence[int] | None = None) -> FloatArray:
    """(R, C) F1 of each class; 0 for a class neither present nor predicted."""
    hits = np.diagonal(sample.confusion, axis1=1, axis2=2)
    found = _ratio(2 * hits, sample.support + sample.confusion.sum(axis=1), undefined=0.0)
    return found if of is None else found[:, list(of)]


def mcc(sample: WeightedSample) -> FloatArray:
    """Matthews correlation for many classes (Gorodkin, 2004); 0 where either side is constant."""
    true, predicted = sample.support, sample.confusion.sum(axis=1)
    total = true.sum(axis=1)
    hits = np.trace(sample.confusion, axis1=1, axis2=2)
    covariance = hits * total - (true * predicted).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return _ratio(covariance, np.sqrt(np.clip(spread, 0.0, None)), undefined=0.0)


def expected_calibration_error(sample: WeightedSample) -> FloatArray:
    """Gap between confidence and accuracy of the predicted class, averaged over 15 bins.

    Bins are equally wide and closed on the right (Guo et al., 2017).
    """
    confidence = sample.probabilities.max(axis=1)
    correct = sample.probabilities.argmax(axis=1) == sample.labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = sample.weights @ (np.eye(ECE_BINS)[bins] * (correct - confidence)[:, None])
    return _ratio(np.abs(gaps).sum(axis=1), sample.weights.sum(axis=1), np.nan)


def _by_threshold(sample: WeightedSample, index: int) -> tuple[FloatArray, FloatArray]:
    """Weights of positives and negatives of one class, grouped by score, the highest score first.

    Returns:
        Two arrays (R, G); tied scores share a group, so that ties are counted as ties.
    """
    scores = sample.probabilities[:, index]
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    weights = sample.weights[:, order]
    positive = (sample.labels[order] == index).astype(np.float64)
    return (
        np.add.reduceat(weights * positive, starts, axis=1),
        np.add.reduceat(weights * (1.0 - positive), starts, axis=1),
    )


def auroc_of_classes(sample: WeightedSample, of: Sequence[int] | None = None) -> FloatArray:
    """(R, C) area under the ROC curve of each class against the rest.

    NaN for a class without an image, or without any other beside it. Ties count one half
    (Mann-Whitney). ``of`` names some of the classes.
    """
    columns = []
    for index in of or range(sample.n_classes):
        positive, negative = _by_threshold(sample, index)
        n_positive, n_negative = positive.sum(axis=1), negative.sum(axis=1)
        below = n_negative[:, None] - np.cumsum(negative, axis=1)
        won = (positive * (below + 0.5 * negative)).sum(axis=1)
        columns.append(_ratio(won, n_positive * n_negative, np.nan))
    return np.stack(columns, axis=1)


def average_precision_of_classes(
    sample: WeightedSample, of: Sequence[int] | None = None
) -> FloatArray:
    """(R, C) average precision (area under the precision-recall curve) of each class.

    The step-wise sum of precision times the gain in recall, without interpolation. NaN for a class
    without an image.
    """
    columns = []
    for index in of or range(sample.n_classes):
        positive, negative = _by_threshold(sample, index)
        found = np.cumsum(positive, axis=1)
        precision = _ratio(found, found + np.cumsum(negative, axis=1), undefined=0.0)
        columns.append(_ratio((positive * precision).sum(axis=1), positive.sum(axis=1), np.nan))
    return np.stack(columns, axis=1)


def sensitivity_of_classes(sample: WeightedSample, of: Sequence[int] | None = None) -> FloatArray:
    """(R, C) largest sensitivity for each class at a specificity of :data:`SPECIFICITY` or more.

    The threshold is any score of the sample: what a reader of its ROC curve would choose. NaN for a
    class without an image, or without any other beside it.
    """
    columns = []
    for index in of or range(sample.n_classes):
        positive, negative = _by_threshold(sample, index)
        n_positive, n_negative = positive.sum(axis=1), negative.sum(axis=1)
        allowed = np.cumsum(negative, axis=1) <= (1 - SPECIFICITY + 1e-9) * n_negative[:, None]
        found = np.where(allowed, np.cumsum(positive, axis=1), 0.0).max(axis=1)
        columns.append(_ratio(found, n_positive * (n_negative > 0), np.nan))
    return np.stack(columns, axis=1)


def quadratic_kappa(sample: WeightedSample) -> FloatArray:
    """Cohen's kappa with quadratic weights (Cohen, 1968), the columns being an ordered scale.

    NaN where labels and predictions are all of one class.
    """
    steps = np.arange(sample.n_classes)
    weights = (steps[:, None] - steps) ** 2
    observed = (sample.confusion * weights).sum(axis=(1, 2))
    predicted = sample.confusion.sum(axis=1)
    by_chance = (sample.support[:, :, None] * predicted[:, None] * weights).sum(axis=(1, 2))
    total = sample.support.sum(axis=1)
    return 1 - _ratio(observed * total, by_chance, undefined=np.nan)


def brier(sample: WeightedSample) -> FloatArray:
    """Brier score for many classes (Brier, 1950): squared distance to the true class, 0 to 2."""
    truth = np.eye(sample.n_classes)[sample.labels]
    distance = ((sample.probabilities - truth) ** 2).sum(axis=1)
    return _ratio(sample.weights @ distance, sample.weights.sum(axis=1), np.nan)


def r2(sample: WeightedValues) -> FloatArray:
    """Coefficient of determination: 1 minus squared error over spread; NaN without a spread."""
    total = sample.weights.sum(axis=1, keepdims=True)
    # From the mean of all and in two passes: the difference of large squares has no digits left.
    values = sample.values - sample.values.mean()
    away = values - sample.weights @ values[:, None] / total
    spread = (sample.weights * away**2).sum(axis=1)
    error = sample.weights @ (sample.values - sample.predictions) ** 2
    noise = (np.finfo(np.float64).eps * np.abs(sample.values).max()) ** 2 * 16 * total[:, 0]
    return 1 - _ratio(error, np.where(spread > noise, spread, 0.0), np.nan)


def mean_absolute_error(sample: WeightedValues) -> FloatArray:
    """Mean absolute error, in the unit of the values."""
    error = np.abs(sample.values - sample.predictions)
    return _ratio(sample.weights @ error, sample.weights.sum(axis=1), np.nan)


@dataclass(frozen=True)
class Metric:
    """A metric and how it is shown.

    Attributes:
        of: Gives (R,) values on a weighted sample of its kind.
        label: Its name.
        scale: Factor for showing it: 100 for a share.
        higher_is_better: Which way is better.
        ordered: Whether it takes the classes for an ordered scale.
        biased: Whether a resample shows more of it than the sample, as a sample does than there is.
        of_label: What it is, a key of :data:`PER_CLASS`, of a label that an image has or not.
    """

    of: Callable[..., FloatArray]
    label: str
    scale: float = 100.0
    higher_is_better: bool = True
    ordered: bool = False
    biased: bool = False
    of_label: str = ""

    @property
    def axis(self) -> str:
        """Its name, with the unit."""
        return f"{self.label} (%)" if self.scale == 100 else self.label

    @property
    def digits(self) -> int:
        """How many decimals of it are shown."""
        return 2 if self.scale == 100 else 3

    @property
    def phrase(self) -> str:
        """Its name within a sentence: what is no abbreviation begins with a small letter."""
        return self.label[0].lower() + self.label[1:] if self.label[1].islower() else self.label

    def on(self, sample: Sample) -> FloatArray:
        """(R,) values; of several labels an image, the mean over those on which it exists."""
        if not isinstance(sample, WeightedLabels):
            return self.of(sample)
        if self.of_label:
            values = per_class(self.of_label, sample)
        else:
            values = np.stack([self.of(one) for one in sample.each], axis=1)
        return _weighted_mean(values, np.ones_like(values))

    def shown(self, sample: Sample) -> FloatArray:
        """(R,) values as they are shown."""
        return self.scale * self.on(sample)


METRICS: dict[str, Metric] = {
    "balanced_accuracy": Metric(balanced_accuracy, "Balanced accuracy"),
    "auroc": Metric(partial(by_support, auroc_of_classes), "AUROC", of_label="auroc"),
    "average_precision": Metric(
        partial(by_support, average_precision_of_classes),
        "Average precision",
        of_label="average_precision",
    ),
    "f1": Metric(partial(by_support, f1_of_classes), "F1", of_label="f1"),
    "mcc": Metric(mcc, "MCC"),
    "sensitivity": Metric(
        partial(by_support, sensitivity_of_classes),
        f"Sensitivity at {SPECIFICITY:.0%} specificity",
        of_label="sensitivity",
    ),
    "quadratic_kappa": Metric(quadratic_kappa, "Quadratic kappa", ordered=True),
    "brier": Metric(brier, "Brier score", 1.0, higher_is_better=False),
    "ece": Metric(
        expected_calibration_error,
        "Expected calibration error",
        higher_is_better=False,
        biased=True,
    ),
    "loss": Metric(cross_entropy, "Cross-entropy", 1.0, higher_is_better=False),
}
"""Every metric of classes by the name that ``--metric`` takes."""

VALUE_METRICS = {
    "r2": Metric(r2, "R²", 1.0),
    "mae": Metric(mean_absolute_error, "Mean absolute error", 1.0, higher_is_better=False),
}
"""Every metric of values, likewise."""
ALL_METRICS = METRICS | VALUE_METRICS
MAIN_METRIC = {
    "classes": "balanced_accuracy", "ordinal": "quadratic_kappa", "multilabel": "auroc",
    "regression": "r2",
}  # fmt: skip
"""What each kind of task is judged by, unless another metric is asked for."""

PER_CLASS: dict[str, Callable[..., FloatArray]] = {
    "recall": lambda sample, of=slice(None): sample.recall[:, of],
    "auroc": auroc_of_classes,
    "average_precision": average_precision_of_classes,
    "sensitivity": sensitivity_of_classes,
}
"""What exists for each class: (R, C)."""


def per_class(name: str, sample: Sample) -> FloatArray:
    """(R, C) values of a key of :data:`PER_CLASS`: of each class, or of each label's presence."""
    if not isinstance(sample, WeightedLabels):
        return PER_CLASS[name](sample)
    if name not in sample.known:
        function = f1_of_classes if name == "f1" else PER_CLASS[name]
        sample.known[name] = np.concatenate([function(one, [1]) for one in sample.each], axis=1)
    return sample.known[name]


def chance(
    labels: Sequence[int] | NDArray, n_classes: int, kind: str = "classes"
) -> dict[str, float | None]:
    """Say what guessing scores, every class with the same probability, by metric.

    Average precision is the prevalence, averaged by support; of values, the mean (R²) and the
    median (error) are guessed. None where guessing has no number.
    """
    if kind == "regression":
        away = np.asarray(labels) - np.median(labels)
        return {"r2": 0.0, "mae": float(np.abs(away).mean())}
    if kind == "multilabel":
        there = np.asarray(labels).mean(axis=0)
        guessed = {"average_precision": there.mean(), "f1": (there / (there + 0.5)).mean()}
        return chance([0, 1], 2) | {name: float(value) for name, value in guessed.items()}
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    guess = 1 / n_classes
    return {
        "loss": math.log(n_classes),
        "balanced_accuracy": guess,
        "auroc": 0.5,
        "average_precision": float((shares**2).sum()),
        "f1": float((shares * 2 * shares * guess / (shares + guess)).sum()),
        "mcc": 0.0,
        "sensitivity": 1 - SPECIFICITY,
        "quadratic_kappa": 0.0,
        "brier": 1 - guess,
        "ece": None,
    }


def interval_of(
    name: str, value: float, draws: FloatArray, units: Sequence[Units]
) -> tuple[float, float] | None:
    """Give the 95 % interval of a metric's value from resamples (R,), both as shown.

    Of a biased metric the sample shows about as much too much as resamples do of the sample: twice
    that is taken off them. The value stays within.
    """
    if name not in ALL_METRICS or not ALL_METRICS[name].biased:
        return bootstrap_interval(draws, units)
    ends = bootstrap_interval((draws - 2 * (draws.mean() - value)).clip(0), units)
    return ends and (min(ends[0], value), max(ends[1], value))


def make_sample(probabilities: ArrayLike, labels: ArrayLike) -> WeightedSample:
    """Check probabilities (N, C) and labels (N,), and weigh every image once.

    Raises:
        InputError: On wrong shapes, an empty split, labels without a column, numbers that are not
            finite, or rows that are no probabilities.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels)
    if table.ndim != 2 or truth.shape != table.shape[:1] or table.size == 0:
        raise InputError(
            "Predictions and labels do not fit together.",
            got=f"probabilities {table.shape}, labels {truth.shape}",
            expected="probabilities (N, C) and labels (N,), with at least one image",
        )
    if (
        not np.issubdtype(truth.dtype, np.integer)
        or not 0 <= truth.min() <= truth.max() < (table.shape[1])
    ):
        raise InputError(
            "A label names no class.",
            got=f"{truth.dtype} labels from {truth.min()} to {truth.max()}",
            expected=f"integers from 0 to {table.shape[1] - 1}",
        )
    if not np.isfinite(table).all() or table.min() < 0 or np.abs(table.sum(1) - 1).max() > 1e-3:
        raise InputError(
            "The predictions are not probabilities.",
            got=f"values from {table.min()} to {table.max()}",
            expected="finite values from 0 to 1 whose rows sum to 1",
            remedy="apply a softmax; values that are not finite mean that training diverged",
        )
    return WeightedSample(table, truth.astype(np.int64), np.ones((1, len(truth))))


def compute_metric(
    name: str, outputs: ArrayLike, labels: ArrayLike, kind: str = "classes"
) -> float:
    """Compute one of :data:`ALL_METRICS` on one split, of (N, C) outputs of a kind of task.

    Raises:
        InputError: If the predictions cannot be scored; see :func:`make_sample`.
    """
    if kind in ("classes", "ordinal"):
        return float(METRICS[name].of(make_sample(outputs, labels))[0])
    values, truth = np.asarray(outputs, np.float64), np.asarray(labels)
    sample = weighted(kind, values, truth, np.ones((1, len(truth))))
    return float(ALL_METRICS[name].on(sample)[0])
