"""The attentive probe: one cross-attention over the stored patch tokens of an image."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from linprobe.probes.attention import (
    AttentionNumbers,
    CrossAttention,
    Sets,
    fit_best,
    probabilities,
)
from linprobe.task import Outcome, ProbingTask, Rows
from retfiner.common.seeds import generator


def token_sets(tokens: Tensor, labels: Tensor, width: int, rows: Tensor) -> Sets:
    """Take the images ``rows`` of (N, T D) tokens and (N,) labels for sets of T vectors each."""

    def take(batch: Tensor) -> tuple[Tensor, Tensor]:
        sets = tokens[rows[batch]].unflatten(1, (-1, width)).float()
        return sets, torch.ones(sets.shape[:2], dtype=torch.bool)

    return Sets(labels[rows], take)


def probe_attentive(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Train an attentive probe for each seed, on the images as they are.

    Raises:
        InputError: If training diverges, or patch tokens cannot be stored.
    """
    width, config = task.extractor.backbone.width, task.config
    numbers, rates = AttentionNumbers.of(config), config.attention_lr
    build = partial(CrossAttention, width, task.n_classes)
    of = {
        name: partial(token_sets, task.clean(name), task.labels(name), width)
        for name in task.data.splits
    }
    val, test = (of[name](torch.arange(len(task.labels(name)))) for name in ("val", "test"))
    outcomes = {}
    for seed, rows in subsets.items():
        train, draws = of["train"](torch.from_numpy(rows)), partial(generator, seed, "attention")
        fitted = fit_best(build, train, val, rates, numbers, draws, task.extractor.device)
        scores = probabilities(fitted.model, test, numbers.batch)
        weights = {name: tensor.cpu() for name, tensor in fitted.model.state_dict().items()}
        outcomes[seed] = Outcome(scores, fitted.curve, weights, fitted.context)
    return outcomes
