"""A data set seen through a backbone: labels, and features clean, augmented, or fresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

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


class ProbingTask:
    """A data set seen through a backbone; features are computed when first asked for.

    Args:
        data: The data set.
        extractor: Computes features or takes them from the store.
        config: Settings.
    """

    def __init__(self, data: DataSet, extractor: Extractor, config: ProbeConfig) -> None:
        self.data, self.extractor, self.config = data, extractor, config
        self._clean = View(evaluation_transform(extractor.backbone))
        numbers = {f.name: getattr(config, f"aug_{f.name}") for f in fields(Augmentation)}
        self._augmented = augmented_transform(extractor.backbone, Augmentation(**numbers))
        self._kept: dict[str, Tensor] = {}

    @property
    def n_classes(self) -> int:
        """Number of classes over all splits."""
        return len(self.data.classes)

    def labels(self, split: str) -> Tensor:
        """Give (N,) labels of a split."""
        return torch.from_numpy(self.data.splits[split].labels)

    def clean(self, split: str) -> Tensor:
        """Give (N, F) features of the images as they are."""
        return self._remember(split, split, [self._clean])[0]

    def views(self) -> Tensor:
        """Give (K, N, F) features of the training images, augmented or, for K = 0, as they are.

        The first K of them do not depend on K: more views cost only those that are new.
        """
        n_views = self.config.n_views(len(self.data.splits["train"]))
        if n_views == 0:
            return self.clean("train")[None]
        seed = self.config.view_seed
        views = [View(self._augmented, ("view", seed, k)) for k in range(n_views)]
        return self._remember("views", "train", views)

    def fresh(self, rows: Rows, seed: int, epoch: int) -> Tensor:
        """Give (N, F) features of training images, augmented as never before."""
        split = self.data.splits["train"].subset(rows)
        view = View(self._augmented, ("online", seed, epoch))
        return self.extractor.fresh(split, [view], f"{self.data.name}: epoch {epoch}")[0]

    def _remember(self, name: str, split: str, views: Sequence[View]) -> Tensor:
        if name not in self._kept:
            title = f"{self.data.name}: {name}"
            self._kept[name] = self.extractor.stored(self.data.splits[split], views, title)
        return self._kept[name]
