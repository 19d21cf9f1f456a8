"""The prototype probe: the nearest class mean. Nothing is trained, nothing is chosen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from linprobe.task import Outcome, ProbingTask, Rows, once_per_subset


def prototype_probabilities(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    n_classes: int,
    temperature: float,
) -> Tensor:
    """Score by distance to the mean of each class: softmax of -squared distance / temperature.

    Prototypical networks (Snell et al., 2017) on frozen features; features are centred by the mean
    of the training images and brought to length 1, as in SimpleShot (Wang et al., 2019, CL2N). Of
    training features (N, F), labels (N,) and features (M, F), it gives (M, C) float64; a class
    without a training image has no prototype and probability 0.
    """
    train = train_features.double()
    centre = train.mean(dim=0)
    known = F.normalize(train - centre, dim=1)
    wanted = F.normalize(features.double() - centre, dim=1)
    of_class = F.one_hot(train_labels, n_classes).double()
    counts = of_class.sum(dim=0)
    prototypes = (of_class.T @ known) / counts.clamp(min=1)[:, None]
    logits = -(torch.cdist(wanted, prototypes) ** 2) / temperature
    return logits.masked_fill(counts == 0, -torch.inf).softmax(dim=1)


def probe_prototype(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Take the nearest class mean, of each seed's training images as they are."""
    train, labels, test = task.clean("train"), task.labels("train"), task.clean("test")
    temperature = task.config.prototype_temperature

    def one(rows: Rows) -> Outcome:
        known = (train[rows], labels[rows], test, task.n_classes)
        return Outcome(prototype_probabilities(*known, temperature).numpy())

    return once_per_subset(subsets, one)
