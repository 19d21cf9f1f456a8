"""The logistic probe against scikit-learn as it is."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from linprobe.probes.logistic import fit_logistic


def draw(n, classes, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(5, 8))
    labels = np.array(classes)[np.arange(n) % len(classes)]
    return 3 + 2 * (0.7 * centres[labels] + rng.normal(size=(n, 8))), labels


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 2]])
def test_the_linear_layer_is_the_fitted_pipeline(classes):
    train, val = draw(60, classes, 0), draw(30, classes, 1)
    head = fit_logistic(*train, *val, len(classes), [0.5])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))
    expected = pipeline.fit(*train).predict_proba(val[0])
    np.testing.assert_allclose(head.probabilities(val[0]), expected, atol=1e-8)


def test_c_is_chosen_on_validation():
    train, val = draw(30, [0, 1, 2], 0), draw(90, [0, 1, 2], 1)
    strengths = [1e-6, 1e-3, 1e-1, 10.0]
    head = fit_logistic(*train, *val, 3, strengths)
    scores = {}
    for c in strengths:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
        scores[c] = balanced_accuracy_score(val[1], pipeline.fit(*train).predict(val[0]))
    assert scores[head.c] == max(scores.values())
    assert [row["c"] for row in head.curve] == strengths
    got = [row["val_balanced_accuracy"] for row in head.curve]
    np.testing.assert_allclose(got, list(scores.values()))
    assert all(row["converged"] for row in head.curve)


def test_classes_without_a_training_image_are_never_predicted():
    train, val = draw(40, [1, 3], 0), draw(30, [0, 1, 3], 1)
    head = fit_logistic(*train, *val, 5, [1.0])
    probabilities = head.probabilities(val[0])
    assert probabilities.shape == (30, 5)
    np.testing.assert_array_equal(probabilities[:, [0, 2, 4]], 0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_one_class_alone_is_always_predicted():
    train, val = draw(8, [2], 0), draw(9, [0, 2], 1)
    head = fit_logistic(*train, *val, 3, [1.0])
    assert (head.probabilities(val[0]).argmax(axis=1) == 2).all()
