"""What the figures draw, computed from predictions alone: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]

RELIABILITY_BINS = 15
"""As many equal-width bins as the expected calibration error has (Guo et al., 2017)."""
FALSE_POSITIVE_RATES = np.linspace(0.0, 1.0, 201)
"""Where ROC curves are read off to be averaged."""


def average_roc(probabilities: FloatArray, labels: IntArray) -> FloatArray | None:
    """Average the one-against-rest ROC curves of all classes by support.

    The area below the average is the weighted AUROC. Classes without a curve are left out.

    Args:
        probabilities: (N, C).
        labels: (N,).

    Returns:
        True positive rate at each of :data:`FALSE_POSITIVE_RATES`; None where no class has a curve.
    """
    from sklearn.metrics import roc_curve  # a second that tables alone need not wait for

    curves, weights = [], []
    for index in range(probabilities.shape[1]):
        positive = labels == index
        if 0 < positive.sum() < len(labels):
            false, true, _ = roc_curve(positive, probabilities[:, index])
            curve = np.interp(FALSE_POSITIVE_RATES, false, true)
            # at a vertical step np.interp is free to choose; take its upper end, the step of rate 0
            curve[0] = true[false == 0].max()
            curves.append(curve)
            weights.append(positive.sum())
    return np.average(curves, axis=0, weights=weights) if curves else None


def confusion_shares(probabilities: Sequence[FloatArray], labels: Sequence[IntArray]) -> FloatArray:
    """Share of each true class that was predicted as each class, over all seeds together.

    Args:
        probabilities: (N, C) for each seed.
        labels: (N,) for each seed.

    Returns:
        (C, C) true by predicted; rows sum to 1, or are NaN for a class without an image.
    """
    n_classes = probabilities[0].shape[1]
    counts = np.zeros((n_classes, n_classes))
    for table, truth in zip(probabilities, labels, strict=True):
        np.add.at(counts, (truth, table.argmax(axis=1)), 1)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, for the bins that hold an image.

    Attributes:
        confidence: (B,) mean probability of the predicted class.
        accuracy: (B,) share of right predictions.
        share: (B,) share of all images.
    """

    confidence: FloatArray
    accuracy: FloatArray
    share: FloatArray

    @property
    def error(self) -> float:
        """Expected calibration error."""
        return float((self.share * np.abs(self.accuracy - self.confidence)).sum())


def reliability(probabilities: FloatArray, labels: IntArray) -> Reliability:
    """Bin predictions by their confidence; bins are equally wide and closed on the right.

    Args:
        probabilities: (N, C).
        labels: (N,).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * RELIABILITY_BINS).astype(np.int64) - 1
    bins = np.clip(bins, 0, RELIABILITY_BINS - 1)
    count = np.bincount(bins, minlength=RELIABILITY_BINS)
    kept = count > 0
    summed = np.bincount(bins, confidence, RELIABILITY_BINS)
    hits = np.bincount(bins, right.astype(np.float64), RELIABILITY_BINS)
    return Reliability(
        summed[kept] / count[kept], hits[kept] / count[kept], count[kept] / len(labels)
    )


def feature_map(features: FloatArray, seed: int) -> FloatArray:
    """Lay features out in two dimensions by t-SNE, initialised by their principal components.

    Features are standardised first. Perplexity is 30, or a third of the number of images where
    that is less.

    Args:
        features: (N, F), N at least 4.
        seed: Of t-SNE.

    Returns:
        (N, 2) positions; axes and distances between far groups have no meaning.
    """
    from sklearn.manifold import TSNE

    table = features.astype(np.float64)
    deviation = table.std(axis=0)
    table = (table - table.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    perplexity = min(30.0, (len(table) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(table)
    return np.asarray(positions, dtype=np.float64)


def choose_images(n: int, limit: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Choose at most ``limit`` of ``n`` images, in their order.

    Args:
        n: Number of images.
        limit: At most so many.
        generator: Draws them.
    """
    if n <= limit:
        return np.arange(n)
    return np.sort(generator.choice(n, size=limit, replace=False))
