"""Metrics against scikit-learn, a naive loop, and numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from retfiner.common.bootstrap import Units
from retfiner.common.errors import InputError
from retfiner.common.metrics import (
    ECE_BINS,
    METRICS,
    SMALLEST_PROBABILITY,
    VALUE_METRICS,
    WeightedSample,
    chance,
    compute_metric,
    interval_of,
    make_sample,
    per_class,
    weighted,
)


def test_what_resamples_show_too_much_of_is_taken_off_twice():
    draws, units = np.linspace(8, 12, 1001), [Units(10**6, [10**6])]  # on average 10
    assert interval_of("auroc", 9.0, draws, units) == pytest.approx((8.1, 11.9))
    assert interval_of("ece", 9.0, draws, units) == pytest.approx((6.1, 9.9))
    assert interval_of("ece", 5.0, draws, units) == (0.0, 5.0)  # no less than 0, and its value


def draw(seed, n=60, n_classes=4, ties=False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes))
    labels = rng.integers(n_classes, size=n)
    logits[np.arange(n), labels] += 1.0
    if ties:
        logits = np.round(logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, labels


def one_vs_rest(function, probabilities, labels):
    """Weighted mean over the classes that are present, class by class through scikit-learn."""
    total = 0.0
    for index in np.unique(labels):
        total += (labels == index).sum() * function(labels == index, probabilities[:, index])
    return total / len(labels)


def naive_ece(probabilities, labels):
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for k in range(ECE_BINS):
        inside = (confidence > k / ECE_BINS) & (confidence <= (k + 1) / ECE_BINS)
        if inside.any():
            gap = (predicted == labels)[inside].mean() - confidence[inside].mean()
            total += inside.sum() * abs(gap)
    return total / len(labels)


def naive_sensitivity(positive, scores):
    """Try every threshold; keep those with 95 % of the negatives below."""
    best = 0.0
    for threshold in np.unique(scores):
        called = scores >= threshold
        if (~called[~positive]).mean() >= 0.95 - 1e-9:
            best = max(best, called[positive].mean())
    return best


ORACLES = {
    "loss": lambda p, y: sk.log_loss(y, p, labels=range(p.shape[1])),
    "balanced_accuracy": lambda p, y: sk.recall_score(
        y, p.argmax(1), labels=np.unique(y), average="macro", zero_division=0
    ),
    "auroc": lambda p, y: one_vs_rest(sk.roc_auc_score, p, y),
    "average_precision": lambda p, y: one_vs_rest(sk.average_precision_score, p, y),
    "f1": lambda p, y: sk.f1_score(y, p.argmax(1), average="weighted", zero_division=0),
    "mcc": lambda p, y: sk.matthews_corrcoef(y, p.argmax(1)),
    "ece": naive_ece,
    "brier": lambda p, y: ((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean(),
    "quadratic_kappa": lambda p, y: sk.cohen_kappa_score(
        y, p.argmax(1), weights="quadratic", labels=range(p.shape[1])
    ),
    "sensitivity": lambda p, y: one_vs_rest(naive_sensitivity, p, y),
}


def test_every_metric_has_an_oracle():
    assert METRICS.keys() == ORACLES.keys()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(4))
def test_metrics_agree_with_oracles(name, seed):
    probabilities, labels = draw(seed, ties=seed % 2 == 1)
    assert compute_metric(name, probabilities, labels) == pytest.approx(
        ORACLES[name](probabilities, labels), abs=1e-9
    )


@pytest.mark.parametrize("name", METRICS)
def test_an_absent_class_is_left_out_and_shifts_no_label(name):
    probabilities, labels = draw(7)
    labels = np.where(labels == 1, 3, labels)
    assert compute_metric(name, probabilities, labels) == pytest.approx(
        ORACLES[name](probabilities, labels), abs=1e-9
    )


@pytest.mark.parametrize("name", METRICS)
def test_weights_count_images_several_times(name):
    probabilities, labels = draw(3, n=25, ties=True)
    weights = np.random.default_rng(0).integers(0, 4, size=(6, 25)).astype(float)
    together = METRICS[name].of(WeightedSample(probabilities, labels, weights))
    for row, value in zip(weights.astype(int), together, strict=True):
        repeated = np.repeat(np.arange(25), row)
        assert value == pytest.approx(
            ORACLES[name](probabilities[repeated], labels[repeated]), abs=1e-9
        )


def test_hand_worked_two_classes():
    # true 0 0 0 1, predicted 0 0 1 1: recalls 2/3 and 1, F1 0.8 and 2/3
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 1])
    expected = {
        "loss": -np.log(0.9 * 0.8 * 0.4 * 0.7) / 4,
        "balanced_accuracy": (2 / 3 + 1) / 2,
        "auroc": 1.0,
        "f1": 0.75 * 0.8 + 0.25 * 2 / 3,
        "mcc": (2 * 1 - 1 * 0) / np.sqrt(2 * 3 * 1 * 2),
        "ece": (0.1 + 0.2 + 0.6 + 0.3) / 4,
        "brier": 2 * (0.1**2 + 0.2**2 + 0.6**2 + 0.3**2) / 4,
        "quadratic_kappa": (3 / 4 - (3 * 2 + 1 * 2) / 16) / (1 - (3 * 2 + 1 * 2) / 16),
    }
    for name, value in expected.items():
        assert compute_metric(name, probabilities, labels) == pytest.approx(value), name


def test_ties_between_positive_and_negative_count_one_half():
    probabilities = np.full((4, 2), 0.5)
    assert compute_metric("auroc", probabilities, [0, 1, 0, 1]) == 0.5


def test_one_class_only():
    probabilities, labels = draw(0)[0], np.zeros(60, dtype=int)
    assert np.isnan(compute_metric("auroc", probabilities, labels))
    assert compute_metric("mcc", probabilities, labels) == 0.0
    assert compute_metric("average_precision", probabilities, labels) == pytest.approx(1.0)


def test_a_probability_of_zero_has_a_finite_loss():
    loss = compute_metric("loss", [[1.0, 0.0], [1.0, 0.0]], [1, 0])
    assert loss == pytest.approx(-np.log(SMALLEST_PROBABILITY) / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_order_of_images_and_of_classes_does_not_matter(seed, ties):
    probabilities, labels = draw(seed, n=20, n_classes=3, ties=ties)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(20), rng.permutation(3)
    renamed = np.argsort(columns)[labels]
    for name in METRICS:
        value = compute_metric(name, probabilities, labels)
        shuffled = compute_metric(name, probabilities[rows], labels[rows])
        assert shuffled == pytest.approx(value, abs=1e-9), name
        if (
            not ties and not METRICS[name].ordered
        ):  # a tied prediction goes to the first class, whichever that is
            moved = compute_metric(name, probabilities[:, columns], renamed)
            assert moved == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        (np.zeros((0, 2)), np.zeros(0, int), "do not fit"),
        ([[0.5, 0.5]], [2], "names no class"),
        ([[0.5, 0.5]], [-1], "names no class"),
        ([[0.5, 0.5]], [0.0], "names no class"),
        ([[np.nan, 0.5]], [0], "not probabilities"),
        ([[3.0, -2.0]], [0], "not probabilities"),
    ],
)
def test_what_cannot_be_scored_is_refused(probabilities, labels, message):
    with pytest.raises(InputError, match=message):
        make_sample(probabilities, labels)


def weigh_by_repeating(kind, outputs, truth, seed=0):
    """Draw weights of 0 to 2, and the images repeated as often."""
    weights = np.random.default_rng(seed).integers(0, 3, size=len(truth))
    rows = np.repeat(np.arange(len(truth)), weights)
    return weighted(kind, outputs, truth, weights[None].astype(float)), outputs[rows], truth[rows]


@pytest.mark.parametrize("seed", range(3))
def test_values_are_scored_as_scikit_learn_does(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(270, 60, size=50)
    outputs = (truth + rng.normal(0, 30, size=50))[:, None]
    assert compute_metric("r2", outputs, truth, "regression") == pytest.approx(
        sk.r2_score(truth, outputs)
    )
    sample, repeated, values = weigh_by_repeating("regression", outputs, truth, seed)
    r2, mae = (VALUE_METRICS[name].of(sample)[0] for name in ("r2", "mae"))
    assert r2 == pytest.approx(sk.r2_score(values, repeated))
    assert mae == pytest.approx(sk.mean_absolute_error(values, repeated))
    for value in (3.7, 280.3, -1.7e9):
        assert np.isnan(compute_metric("r2", outputs, np.full(50, value), "regression"))
    for far in (280.3, 1.7e9):  # as seconds since 1970: squares leave no digit of the spread
        shifted = far + np.arange(7.0), far + np.arange(7.0)[:, None] + 0.5
        assert compute_metric("r2", *shifted[::-1], "regression") == pytest.approx(
            1 - 7 * 0.25 / 28
        )
    guessed = chance(truth, 1, "regression")
    middle = np.full(50, np.median(truth))
    assert guessed == {"r2": 0.0, "mae": pytest.approx(sk.mean_absolute_error(truth, middle))}


def test_several_labels_an_image_are_scored_each_and_averaged():
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < [0.5, 0.3, 0.2]).astype(int)
    outputs = np.clip(0.5 * truth + 0.6 * rng.random((60, 3)), 0, 1)
    sample, repeated, labels = weigh_by_repeating("multilabel", outputs, truth)
    found = METRICS["auroc"].on(sample)[0]
    assert found == pytest.approx(sk.roc_auc_score(labels, repeated, average="macro"))
    pairs = list(zip(labels.T, repeated.T, strict=True))
    expected = np.mean([sk.balanced_accuracy_score(y, p > 0.5) for y, p in pairs])
    assert METRICS["balanced_accuracy"].on(sample)[0] == pytest.approx(expected)
    precision = [sk.average_precision_score(y, p) for y, p in pairs]
    np.testing.assert_allclose(per_class("average_precision", sample)[0], precision)
    assert METRICS["average_precision"].on(sample)[0] == pytest.approx(np.mean(precision))
    expected = sk.f1_score(labels, repeated > 0.5, average="macro")
    assert METRICS["f1"].on(sample)[0] == pytest.approx(expected)
    assert METRICS["mcc"].on(sample)[0] == pytest.approx(
        np.mean([sk.matthews_corrcoef(y, p > 0.5) for y, p in pairs])
    )
    guessed = chance(truth, 3, "multilabel")
    assert guessed["auroc"] == guessed["balanced_accuracy"] == 0.5
    assert guessed["average_precision"] == pytest.approx(truth.mean())


def test_a_label_that_no_image_has_is_left_out_of_the_mean():
    truth = np.array([[1, 0], [0, 0], [1, 0]])
    outputs = np.array([[0.9, 0.2], [0.2, 0.1], [0.8, 0.3]])
    assert compute_metric("auroc", outputs, truth, "multilabel") == 1.0
