"""Several images of one exam: what tells them apart, and how much each of them counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EYES = ("OD", "OS")
KINDS = ("bscan", "fundus", "infrared", "autofluorescence", "angiography", "other")
WAVES = 4
MARKS = 2 * WAVES + len(EYES) + len(KINDS)
"""Numbers that describe an image's place in its exam; what is not known of it is zeros."""
QUERIES = 4


def marks_of(position: float | None = None, eye: str = "", kind: str = "") -> list[float]:
    """Describe an image by its place along its volume, from 0 to 1, its eye and its kind.

    The place becomes sines and cosines of growing frequency, so that neighbours are alike and ends
    are not. Of :data:`MARKS` numbers, those of what is not known are 0.
    """
    turns = [] if position is None else [math.pi * 2**k * position for k in range(WAVES)]
    waves = [value for turn in turns for value in (math.sin(turn), math.cos(turn))]
    return [
        *(waves or [0.0] * (2 * WAVES)),
        *(float(eye == name) for name in EYES),
        *(float(kind == name) for name in KINDS),
    ]


class AttentionPooling(nn.Module):
    """Weigh the images of an exam by a few learned queries, each in a way of its own.

    Images are weighed whole, by their CLS tokens, as instances of a bag are (Ilse et al.,
    Attention-based deep multiple instance learning, 2018); each query serves one part of the
    vector that is pooled, as a head does in CoCa's pooling (Yu et al., 2022). Queries begin at 0,
    which is the mean, and an exam of one image is that image.
    """

    def __init__(self, width: int, queries: int = QUERIES) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width)
        self.query = nn.Parameter(torch.zeros(queries, width))

    def forward(self, cls_tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Weigh (B, K, width) images, of which ``mask``, (B, K), says which are there: (B, Q, K).

        Weights are shares: of a query's images they sum to 1.
        """
        scores = self.key(self.norm(cls_tokens)) @ self.query.T / math.sqrt(cls_tokens.shape[-1])
        scores = scores.transpose(1, 2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        return scores.softmax(-1)


class MeanPooling(nn.Module):
    """Weigh the images of an exam alike."""

    def forward(self, cls_tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Do what :class:`AttentionPooling` does, with one query: (B, 1, K)."""
        there = cls_tokens.new_ones(cls_tokens.shape[:2]) if mask is None else mask
        return (there / there.sum(1, keepdim=True))[:, None].to(cls_tokens.dtype)


def pooled(weights: Tensor, values: Tensor) -> Tensor:
    """Sum (B, K, E) values by (B, Q, K) weights, each query's over its part of E: (B, E)."""
    parts = values.unflatten(-1, (weights.shape[1], -1))
    return torch.einsum("bqk,bkqe->bqe", weights.to(values.dtype), parts).flatten(1)
