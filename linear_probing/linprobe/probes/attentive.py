"""The attentive probe: one cross-attention over the stored patch tokens of an image."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from linprobe.probes.attention import CrossAttention, Sets, probe_sets
from linprobe.task import Outcome, ProbingTask, Rows


def token_sets(tokens: Tensor, labels: Tensor, width: int, kind: str, rows: Tensor) -> Sets:
    """Take the images ``rows`` of (N, T D) tokens and (N,) labels for sets of T vectors each."""

    def take(batch: Tensor) -> tuple[Tensor, Tensor]:
        sets = tokens[rows[batch]].unflatten(1, (-1, width)).float()
        return sets, torch.ones(sets.shape[:2], dtype=torch.bool)

    return Sets(labels[rows], take, kind)


def probe_attentive(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Train an attentive probe for each seed, on the images as they are.

    Raises:
        InputError: If training diverges, or patch tokens cannot be stored.
    """
    width = task.extractor.backbone.width
    of = {
        name: partial(token_sets, task.clean(name), task.labels(name), width, task.data.task)
        for name in task.data.splits
    }
    val, test = (of[name](torch.arange(len(task.labels(name)))) for name in ("val", "test"))
    build = partial(CrossAttention, width, task.n_classes)
    return probe_sets(task, subsets, build, lambda r: of["train"](torch.from_numpy(r)), val, test)
