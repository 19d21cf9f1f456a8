"""What the figures draw, against scikit-learn, the metrics, and hand-worked numbers."""

import numpy as np
import pytest
from matplotlib import rc_context

from linprobe.report.figures import confusion_shares, draw_confusion, draw_scores, reliability
from linprobe.report.loading import load
from linprobe.report.style import STYLE
from linprobe.report.summary import summarise
from retfiner.common.metrics import compute_metric
from tests.helpers.probing_runs import make_predictions, write_predictions


def draw(n=400, n_classes=4, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), labels] += 1.0
    logits = np.round(logits) if ties else logits
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_thirty_models_leave_room_for_their_scores(tmp_path):
    names = [f"m{k}" for k in range(30)]
    for name in names:
        write_predictions(tmp_path, make_predictions(name, "OCTID", 0, strength=1.0, n=20))
    loaded = load(tmp_path, [], [(names[0], name) for name in names[1:]])
    numbers = {"scales": {}, "resamples": 5, "swaps": 1, "seed": 0}
    summary = summarise(loaded, "balanced_accuracy", **numbers)
    with rc_context(STYLE):
        figure = draw_scores(summary).figure
        figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().height / figure.dpi > 0.2  # inches a data set
    assert draw_confusion(summary).figure.get_figwidth() < 15


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
