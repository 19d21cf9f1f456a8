"""The MIL probe: gated attention over the stored features of a unit's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from linprobe.probes.attention import GatedAttention, Sets, probe_sets
from linprobe.task import Outcome, ProbingTask, Rows
from linprobe.units import bags_of
from retfiner.common.errors import InputError


def bag_sets(features: Tensor, bags: Sequence[Sequence[int]], labels: Sequence[int]) -> Sets:
    """Take rows of (N, F) features together: a set for each bag, with the class it has."""
    padded = pad_sequence([torch.tensor(bag) for bag in bags], batch_first=True, padding_value=-1)

    def take(batch: Tensor) -> tuple[Tensor, Tensor]:
        longest = int((padded[batch] >= 0).sum(dim=1).max())
        rows = padded[batch, :longest]
        return features[rows.clamp(min=0)].float(), rows >= 0

    return Sets(torch.tensor(labels), take)


def probe_mil(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Train gated attention for each seed; every image of a test unit is given what its unit is.

    Units with images of several classes are not trained on.

    Raises:
        InputError: If no unit has one class, or training diverges.
    """
    split = task.data.splits["test"]
    bags, _ = bags_of(task.config.unit, split.names, split.owners, split.labels.tolist())
    test = bag_sets(task.clean("test"), bags, [0] * len(bags))
    val, _ = _labelled(task, "val", np.arange(len(task.labels("val"))))
    build = partial(GatedAttention, task.extractor.feature_width, task.n_classes)
    sets = {seed: _labelled(task, "train", rows) for seed, rows in subsets.items()}
    by_rows = {rows.tobytes(): sets[seed][0] for seed, rows in subsets.items()}
    found = probe_sets(task, subsets, build, lambda rows: by_rows[rows.tobytes()], val, test)
    place = np.empty(len(split), np.int64)
    for k, bag in enumerate(bags):
        place[bag] = k
    return {
        seed: replace(one, probabilities=one.probabilities[place],
                      context={**one.context, **sets[seed][1]})
        for seed, one in found.items()
    }  # fmt: skip


def _labelled(task: ProbingTask, split: str, rows: Rows) -> tuple[Sets, dict[str, int]]:
    """Group images of a split; of the units, take those with one class, and count them."""
    part = task.data.splits[split].subset(rows)
    bags, labels = bags_of(task.config.unit, part.names, part.owners, part.labels.tolist())
    known = [(bag, label) for bag, label in zip(bags, labels, strict=True) if label is not None]
    if not known:
        raise InputError(
            f"{task.data.name}: no {task.config.unit} of {split} has images of one class alone",
            remedy="pool by another --unit",
        )
    features = task.clean(split)[torch.from_numpy(rows)]
    counts = {"units_trained_on": len(known), "units_left_out": len(bags) - len(known)}
    return bag_sets(features, *map(list, zip(*known, strict=True))), counts
