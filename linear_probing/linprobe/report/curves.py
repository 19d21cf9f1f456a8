"""What the figures draw, computed from predictions alone: pure functions of arrays.

Of N images and C classes: ``probabilities`` (N, C), ``labels`` (N,).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from linprobe.statistics import FloatArray
from retfiner.common.metrics import make_sample

IntArray = NDArray[np.integer[Any]]

RELIABILITY_BINS = 15
"""As many equal-width bins as the expected calibration error has (Guo et al., 2017)."""
FALSE_POSITIVE_RATES = np.linspace(0.0, 1.0, 201)
"""Where ROC curves are read off to be averaged."""


def average_roc(probabilities: FloatArray, labels: IntArray) -> FloatArray | None:
    """Average the one-against-rest ROC curves of all classes by support.

    Gives the true positive rate at each of :data:`FALSE_POSITIVE_RATES`, the area below which is
    the weighted AUROC. Classes without a curve are left out; None where no class has one.
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


def confusion_shares(tables: FloatArray, labels: IntArray) -> FloatArray:
    """Share of each true class that was predicted as each, over (S, N, C) tables of all seeds.

    Gives (C, C), true by predicted; rows sum to 1, or are NaN for a class without an image.
    """
    sample = make_sample(np.concatenate(tables), np.tile(labels, len(tables)))
    with np.errstate(invalid="ignore"):
        return np.asarray(sample.confusion[0] / sample.support[0, :, None])


class Reliability(NamedTuple):
    """Mean confidence, accuracy and share of the images, of each bin (B,) that holds one."""

    confidence: FloatArray
    accuracy: FloatArray
    share: FloatArray


def reliability(probabilities: FloatArray, labels: IntArray) -> Reliability:
    """Bin predictions by their confidence; bins are equally wide and closed on the right."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * RELIABILITY_BINS).clip(1, RELIABILITY_BINS)
    grouped = pd.DataFrame({"confidence": confidence, "right": right}).groupby(bins)
    means = grouped.mean()
    return Reliability(
        means["confidence"].to_numpy(),
        means["right"].to_numpy(np.float64),
        grouped.size().to_numpy() / len(labels),
    )


def feature_map(features: FloatArray, seed: int) -> FloatArray:
    """Lay features (N, F), N at least 4, out in two dimensions by t-SNE: (N, 2).

    They are standardised, and initialised by their principal components. Perplexity is 30, or a
    third of the number of images where that is less. Axes and distances between far groups have no
    meaning.
    """
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    table = StandardScaler().fit_transform(features.astype(np.float64))
    perplexity = min(30.0, (len(table) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(table)
    return np.asarray(positions, dtype=np.float64)


def choose_images(n: int, limit: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Choose at most ``limit`` of ``n`` images, in their order."""
    return np.sort(generator.choice(n, size=min(n, limit), replace=False))
