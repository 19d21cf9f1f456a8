"""What the figures draw, against scikit-learn, the metrics, and hand-worked numbers."""

import numpy as np
import pytest
from sklearn import metrics as sk

from linprobe.report.curves import (
    FALSE_POSITIVE_RATES,
    average_roc,
    choose_images,
    confusion_shares,
    feature_map,
    reliability,
)
from retfiner.common.metrics import compute_metric


def draw(n=400, n_classes=4, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), labels] += 1.0
    logits = np.round(logits) if ties else logits
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_the_area_of_the_average_is_the_weighted_auroc():
    probabilities, labels = draw(4000)
    area = np.trapezoid(average_roc(probabilities, labels), FALSE_POSITIVE_RATES)
    assert area == pytest.approx(compute_metric("auroc", probabilities, labels), abs=2e-3)


def test_a_perfect_curve_rises_at_once_and_absent_classes_have_none():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    np.testing.assert_array_equal(average_roc(probabilities, np.array([0, 1])), 1.0)
    assert average_roc(probabilities, np.array([0, 0])) is None


def test_confusion_hand_worked():
    first, second = np.eye(3)[[0, 1, 1]], np.eye(3)[[0, 0, 0]]
    labels = np.array([0, 0, 1])
    shares = confusion_shares(np.stack([first, second]), labels)
    np.testing.assert_allclose(shares[:2], [[0.75, 0.25, 0], [0.5, 0.5, 0]])
    assert np.isnan(shares[2]).all()


@pytest.mark.parametrize("seed", range(3))
def test_reliability_is_the_calibration_error_of_the_metrics(seed):
    probabilities, labels = draw(seed=seed)
    found = reliability(probabilities, labels)
    error = (found.share * np.abs(found.accuracy - found.confidence)).sum()
    assert error == pytest.approx(compute_metric("ece", probabilities, labels))
    assert found.share.sum() == pytest.approx(1)


def test_reliability_hand_worked():
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.6, 0.4]])
    found = reliability(probabilities, np.array([0, 1, 0]))
    np.testing.assert_allclose(found.confidence, [0.6, 0.91])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5])
    np.testing.assert_allclose(found.share, [1 / 3, 2 / 3])


def test_the_map_keeps_groups_apart_and_is_reproducible():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(20, 8)), rng.normal(size=(20, 8)) + 8])
    features[:, 3] = 1.0  # a constant feature divides by nothing
    positions = feature_map(features, seed=0)
    assert positions.shape == (40, 2)
    assert sk.silhouette_score(positions, np.repeat([0, 1], 20)) > 0.5
    np.testing.assert_array_equal(positions, feature_map(features, seed=0))


def test_chosen_images_are_sorted_and_distinct():
    assert choose_images(5, 5, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]
    chosen = choose_images(100, 10, np.random.default_rng(0))
    assert len(set(chosen)) == 10
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, choose_images(100, 10, np.random.default_rng(0)))
