"""Several images of one exam: what tells them apart, and how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retfiner.common.errors import InputError
from retfiner.vision.checkpoint_file import read_checkpoint

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


POOLING_KEY = "exam_pooling"
"""Under this key a file beside an extracted backbone holds what weighs the images of an exam."""


class ExamPooling(nn.Module):
    """What an extracted backbone lacks to weigh the images of an exam, from such a file.

    Args:
        state: Of a refined model, the projection to the text width, marks and queries.

    Raises:
        InputError: If parts are missing or left over.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        try:
            width = state["image_marks.weight"].shape[0]
            projection = state.get("vision_proj.weight")
            self.vision_proj = (
                nn.Identity() if projection is None else nn.Linear(projection.shape[1], width)
            )
            self.image_marks = nn.Linear(MARKS, width, bias=False)
            query = state.get("contra_pool.query")
            self.contra_pool = (
                MeanPooling() if query is None else AttentionPooling(width, len(query))
            )
            self.load_state_dict(state)
        except (KeyError, RuntimeError) as error:
            raise InputError(
                "the file holds no pooling of exams",
                got=str(error).splitlines()[0],
                expected="the ..._exam.pth that the extraction wrote beside a backbone",
            ) from error

    @classmethod
    def load(cls, path: Path | str) -> ExamPooling:
        """Read it, in evaluation mode.

        Raises:
            InputError: If there is none in the file.
        """
        content: Any = read_checkpoint(path).content
        return cls(content.get(POOLING_KEY, {})).eval()

    @torch.no_grad()
    def forward(self, tokens: Tensor, marks: Tensor | None = None) -> Tensor:
        """Weigh the images of an exam: shares (K,), by which features of them may be summed.

        ``tokens``, (K, T, D), are ``backbone.fusion_tokens(images)``; ``marks``, (K, MARKS), those
        of :func:`marks_of`.
        """
        cls_tokens = self.vision_proj(tokens[:, 0])
        if marks is not None:
            cls_tokens = cls_tokens + self.image_marks(marks)
        return self.contra_pool(cls_tokens[None]).mean(1)[0]
