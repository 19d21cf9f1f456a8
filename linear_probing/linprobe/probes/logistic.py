"""The logistic-regression probe: L-BFGS, its regularisation chosen on validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from linprobe.task import Outcome, ProbingTask, Rows, once_per_subset
from retfiner.common.metrics import compute_metric

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

FloatArray = NDArray[np.floating[Any]]
MAX_ITERATIONS = 2000


class LogisticHead(NamedTuple):
    """A fitted logistic regression, as a linear layer on the features as they are.

    Attributes:
        weight: (C, F).
        bias: (C,); minus infinity for a class without a training image.
        c: The inverse regularisation strength that was chosen.
        curve: A row for each strength: validation loss and balanced accuracy, and whether the
            optimiser converged.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    c: float
    curve: list[dict[str, float]]

    def probabilities(self, features: FloatArray) -> NDArray[np.float64]:
        """Score (N, F) features: (N, C)."""
        logits = features.astype(np.float64) @ self.weight.T + self.bias
        return np.asarray(softmax(logits, axis=1))


def fit_logistic(
    train_features: FloatArray,
    train_labels: NDArray[np.int64],
    val_features: FloatArray,
    val_labels: NDArray[np.int64],
    n_classes: int,
    strengths: Sequence[float],
) -> LogisticHead:
    """Fit on standardised (N, F) training features for each strength, take the best on validation.

    The best has the highest balanced accuracy; on a tie the lowest loss, then the strongest
    regularisation. ``strengths`` are scikit-learn's C, the inverse regularisation strength.
    """
    from sklearn.preprocessing import StandardScaler  # a second: not for the other probes

    scaler = StandardScaler().fit(train_features.astype(np.float64))
    curve: list[dict[str, float]] = []
    candidates: list[tuple[tuple[float, float, float], LogisticHead]] = []
    for c in sorted(strengths):
        weight, bias, converged = _fit(scaler, train_features, train_labels, n_classes, c)
        head = LogisticHead(weight, bias, c, curve)
        scored = (head.probabilities(val_features), val_labels)
        loss, score = compute_metric("loss", *scored), compute_metric("balanced_accuracy", *scored)
        curve.append(
            {"c": c, "val_loss": loss, "val_balanced_accuracy": score, "converged": converged}
        )
        candidates.append(((-score, loss, c), head))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _fit(
    scaler: StandardScaler,
    features: FloatArray,
    labels: NDArray[np.int64],
    n_classes: int,
    c: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Fit for one strength; return weight and bias on the features as they are."""
    present = np.unique(labels)
    weight = np.zeros((n_classes, features.shape[1]))
    bias = np.full(n_classes, -np.inf)
    bias[present] = 0.0
    if len(present) == 1:  # nothing to tell apart: a small share may hold one class only
        return weight, bias, True
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)  # goes into the curve instead
        model.fit(scaler.transform(features.astype(np.float64)), labels)
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps the second class's logit alone
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weight[present] = coefficients / scaler.scale_
    bias[present] = intercepts - weight[present] @ scaler.mean_
    return weight, bias, converged


def probe_logistic(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Fit a logistic regression to each seed's training images as they are."""
    splits = task.data.splits
    train, val, test = (task.clean(name).numpy() for name in splits)

    def one(rows: Rows) -> Outcome:
        labelled = (train[rows], splits["train"].labels[rows], val, splits["val"].labels)
        head = fit_logistic(*labelled, task.n_classes, task.config.logistic_c)
        weights = {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
        return Outcome(head.probabilities(test), head.curve, weights, {"c": head.c})

    return once_per_subset(subsets, one)
