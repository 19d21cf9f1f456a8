"""What training needs to know of a kind of task: the loss, its targets, and what comes out.

Of C outputs: classes and grades have a softmax, several labels an image a sigmoid each, and a
regression predicts its (standardised) value as it is. With the loss that belongs to each, the
gradient with respect to the logits is the output minus the target, for all three.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

CRITERION = {
    "classes": "balanced_accuracy", "ordinal": "balanced_accuracy", "multilabel": "auroc",
    "regression": "r2",
}  # fmt: skip
"""What chooses an epoch on validation."""
LOSS = {"classes": "loss", "ordinal": "loss", "multilabel": "loss", "regression": "mae"}
"""What decides where that is the same."""


def outputs(kind: str, logits: Tensor) -> Tensor:
    """Turn (..., C) logits into probabilities, or values."""
    if kind == "regression":
        return logits
    return logits.sigmoid() if kind == "multilabel" else logits.log_softmax(dim=-1).exp()


def targets(kind: str, labels: Tensor, n: int, smoothing: float) -> Tensor:
    """Turn labels (N,), of several (N, C), into (N, C) float64 targets, evenly smoothed."""
    if kind == "regression":
        return labels.double()[..., None]
    if kind == "multilabel":
        return labels.double() * (1 - smoothing) + smoothing / 2
    return F.one_hot(labels, n).double() * (1 - smoothing) + smoothing / n


def losses(kind: str, logits: Tensor, wanted: Tensor) -> Tensor:
    """Give the loss of each of (..., C) logits against targets like these: (...)."""
    if kind == "regression":
        return 0.5 * ((logits - wanted) ** 2).sum(dim=-1)
    if kind == "multilabel":
        every = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return every.sum(dim=-1)
    return -(wanted * logits.log_softmax(dim=-1)).sum(dim=-1)
