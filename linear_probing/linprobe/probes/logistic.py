"""The logistic-regression probe: L-BFGS, its regularisation chosen on validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from linprobe.task import Outcome, ProbingTask, Rows, once_per_subset
from retfiner.common.metrics import compute_metric

FloatArray = NDArray[np.floating[Any]]
MAX_ITERATIONS = 2000


@dataclass
class LogisticHead:
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
    from sklearn.exceptions import ConvergenceWarning  # a second: not for the other probes
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    features, present = scaler.fit_transform(train_features.astype(np.float64)), set(train_labels)
    curve: list[dict[str, float]] = []
    fitted: list[LogisticHead] = []
    for c in sorted(strengths):
        bias = np.full(n_classes, -np.inf)
        head = LogisticHead(np.zeros((n_classes, features.shape[1])), bias, c, curve)
        rows, caught = sorted(present), list[warnings.WarningMessage]()
        bias[rows] = 0.0
        if len(rows) > 1:  # else nothing to tell apart: a small share may hold one class only
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)  # goes into the curve instead
                model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(features, train_labels)
            # Of two classes, scikit-learn keeps the second's logit alone.
            head.weight[rows[-len(model.coef_) :]] = model.coef_ / scaler.scale_
            bias[rows[-len(model.coef_) :]] = model.intercept_
            bias[rows] -= head.weight[rows] @ scaler.mean_
        scored = (head.probabilities(val_features), val_labels)
        loss, score = (compute_metric(name, *scored) for name in ("loss", "balanced_accuracy"))
        converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
        curve.append(
            {"c": c, "val_loss": loss, "val_balanced_accuracy": score, "converged": converged}
        )
        fitted.append(head)
    keys = [(-row["val_balanced_accuracy"], row["val_loss"], row["c"]) for row in curve]
    return fitted[keys.index(min(keys))]


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
