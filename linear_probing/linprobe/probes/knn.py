"""The k-nearest-neighbour probe: nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from linprobe.probes.kinds import targets
from linprobe.task import Outcome, ProbingTask, Rows, once_per_subset

BLOCK = 4096
"""Images scored at once; bounds memory, never changes a value."""


def knn_probabilities(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    n_classes: int,
    neighbours: int,
    temperature: float,
    kind: str = "classes",
) -> Tensor:
    """Let the most similar training images vote, weighted by exp(cosine / temperature).

    The weighting is that of Wu et al., 2018, and of DINO's evaluation (Caron et al., 2021). Of
    training features (N, F), labels (N,) and features (M, F), it gives (M, C) float64, each class's
    or label's share of the votes, or the mean value; all vote where there are fewer than
    ``neighbours``.
    """
    bank = F.normalize(train_features.double(), dim=1)
    votes = targets(kind, train_labels, n_classes, 0.0)
    shares = []
    for block in F.normalize(features.double(), dim=1).split(BLOCK):
        similarity, nearest = (block @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        weights = (similarity / temperature).softmax(dim=1)
        shares.append((weights[:, :, None] * votes[nearest]).sum(dim=1))
    return torch.cat(shares)


def probe_knn(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Let neighbours vote, among each seed's training images as they are."""
    train, labels, test = task.clean("train"), task.labels("train"), task.clean("test")
    wanted = task.config.neighbours

    def one(rows: Rows) -> Outcome:
        bank = (train[rows], labels[rows], test, task.n_classes)
        votes = knn_probabilities(*bank, wanted, task.config.knn_temperature, task.data.task)
        return Outcome(votes.numpy(), context={"neighbours_used": min(wanted, len(rows))})

    return once_per_subset(subsets, one)
