"""The k-nearest-neighbour probe: nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 4096
"""Images scored at once; bounds memory, never changes a value."""


def knn_probabilities(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    n_classes: int,
    neighbours: int,
    temperature: float,
) -> Tensor:
    """Let the most similar training images vote, weighted by exp(cosine / temperature).

    The weighting is that of Wu et al., 2018, and of DINO's evaluation (Caron et al., 2021).

    Args:
        train_features: (N, F).
        train_labels: (N,).
        features: (M, F).
        n_classes: C.
        neighbours: How many vote; all, where there are fewer.
        temperature: The smaller, the more the nearest count.

    Returns:
        (M, C) float64, each class's share of the votes.
    """
    bank = F.normalize(train_features.double(), dim=1)
    votes = F.one_hot(train_labels, n_classes).double()
    shares = []
    for block in F.normalize(features.double(), dim=1).split(BLOCK):
        similarity, nearest = (block @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        weights = (similarity / temperature).softmax(dim=1)
        shares.append((weights[:, :, None] * votes[nearest]).sum(dim=1))
    return torch.cat(shares)
