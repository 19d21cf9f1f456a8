"""What a probe is given, a data set seen through a backbone, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linprobe.config import ProbeConfig
from linprobe.datasets import DataSet
from linprobe.features import Extractor, View
from retfiner.vision import Augmentation, augmented_transform, evaluation_transform

Rows = NDArray[np.int64]
"""Indices of training images."""


@dataclass(frozen=True)
class Outcome:
    """What a probe came to, for one seed.

    Attributes:
        probabilities: (N, C) on the test images.
        curve: Rows of the learning curve.
        head: Weights of what was trained, ready for ``torch.save``; None where there is none.
        context: Values that were found on the way.
    """

    probabilities: NDArray[np.float64]
    curve: list[dict[str, float]] = field(default_factory=list)
    head: dict[str, Tensor] | None = None
    context: dict[str, Any] = field(default_factory=dict)


def once_per_subset(subsets: dict[int, Rows], one: Callable[[Rows], Outcome]) -> dict[int, Outcome]:
    """Run a probe without randomness of its own once for all seeds with the same images."""
    distinct = {rows.tobytes(): rows for rows in subsets.values()}
    done = {key: one(rows) for key, rows in distinct.items()}
    return {seed: done[rows.tobytes()] for seed, rows in subsets.items()}


class ProbingTask:
    """A data set seen through a backbone; features are computed when first asked for."""

    def __init__(self, data: DataSet, extractor: Extractor, config: ProbeConfig) -> None:
        self.data, self.extractor, self.config = data, extractor, config
        self.clean_view = View(evaluation_transform(extractor.backbone))
        self.augmented = augmented_transform(extractor.backbone, Augmentation())
        self._kept: dict[str, Tensor] = {}

    @property
    def n_classes(self) -> int:
        """Number of classes over all splits, or of labels, or 1 for a value."""
        return len(self.data.classes)

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and spread of the training images' values, by which they are standardised."""
        values = self.data.splits["train"].labels
        return float(values.mean()), float(values.std()) or 1.0

    def labels(self, split: str) -> Tensor:
        """Give (N,) labels of a split, or standardised values; (N, L) for several labels."""
        labels = self.data.splits[split].labels
        if self.data.task == "regression":
            labels = (labels - self.scale[0]) / self.scale[1]
        return torch.from_numpy(labels)

    def clean(self, split: str) -> Tensor:
        """Give (N, F) features of the images as they are."""
        return self._remember(split, split, [self.clean_view])[0]

    @property
    def n_views(self) -> int | None:
        """Number of stored augmented views a training image; None where none is stored."""
        online = self.config.online_augmentation
        return None if online else self.config.n_views(len(self.data.splits["train"]))

    def views(self) -> Tensor:
        """Give (K, N, F) features of the training images, augmented or, for K = 0, as they are.

        The first K of them do not depend on K: more views cost only those that are new.
        """
        if not self.n_views:
            return self.clean("train")[None]
        views = [View(self.augmented, ("view", 0, k)) for k in range(self.n_views)]
        return self._remember("views", "train", views)

    def fresh(self, rows: Rows, seed: int, epoch: int) -> Tensor:
        """Give (N, F) features of training images, augmented as never before."""
        split = self.data.splits["train"].subset(rows)
        view = View(self.augmented, ("online", seed, epoch))
        return self.extractor.fresh(split, view, f"{self.data.name}: epoch {epoch}")

    def _remember(self, name: str, split: str, views: Sequence[View]) -> Tensor:
        if name not in self._kept:
            title = f"{self.data.name}: {name}"
            self._kept[name] = self.extractor.stored(self.data.splits[split], views, title)
        return self._kept[name]
