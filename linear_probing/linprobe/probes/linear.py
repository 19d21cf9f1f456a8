"""The linear probe: which features its heads see, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import torch

from linprobe.config import LinearSettings, ProbeConfig
from linprobe.probes.head import Table, TrainingSet, train_heads
from linprobe.schedule import batch_size_of
from linprobe.task import Outcome, ProbingTask, Rows
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator


def probe_linear(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Train a linear head for each seed, at once where their training sets are equally large.

    Raises:
        InputError: If the batch is larger than a training set, or training diverges.
    """
    outcomes: dict[int, Outcome] = {}
    for size in sorted({len(rows) for rows in subsets.values()}):
        equal = {seed: rows for seed, rows in subsets.items() if len(rows) == size}
        outcomes |= _linear_at_once(task, equal, size)
    return outcomes


def head_settings(config: ProbeConfig, backbone: str) -> LinearSettings:
    """Take the numbers that a head is trained by from the settings of a run."""
    numbers = {f.name: getattr(config, f.name) for f in fields(LinearSettings)}
    return LinearSettings(**numbers | {"weight_decay": config.decay_of(backbone)})


def _linear_at_once(task: ProbingTask, subsets: dict[int, Rows], size: int) -> dict[int, Outcome]:
    config = task.config
    batch = config.batch_size or batch_size_of(size)
    if batch > size:
        raise InputError(
            f"{task.data.name}: --batch_size {batch} is more than there are training images",
            expected=f"at most {size}",
            remedy="leave --batch_size out: the published rule fits the batch to the data",
        )
    source = _source(task)
    labels = task.labels("train")
    sets = [
        TrainingSet(labels[torch.from_numpy(rows)], partial(source, rows, seed),
                    generator(seed, "head"))
        for seed, rows in subsets.items()
    ]  # fmt: skip
    settings = head_settings(config, task.extractor.backbone.spec.name)
    validation = (task.clean("val").to(task.extractor.device), task.labels("val"))
    heads = train_heads(sets, *validation, task.n_classes, batch, settings, task.data.task)
    found, test = {"batch_size": batch, "views": task.n_views}, task.clean("test")
    return {
        seed: Outcome(
            head.probabilities(test).numpy(),
            head.watch.curve,
            {"weight": head.weight.cpu(), "bias": head.bias.cpu()},
            {**found, **head.watch.context},
        )
        for seed, head in zip(subsets, heads, strict=True)
    }


def _source(task: ProbingTask) -> Callable[[Rows, int, int, torch.Generator], Table]:
    """Give what finds an epoch's features of a seed's images."""
    device = task.extractor.device
    if task.config.online_augmentation:

        def fresh(rows: Rows, seed: int, epoch: int, _: torch.Generator) -> Table:
            return task.fresh(rows, seed, epoch).to(device), torch.arange(len(rows))

        return fresh
    views = task.views()
    n_views, n_images = views.shape[:2]
    table = views.flatten(0, 1).to(device)

    def stored(rows: Rows, _: int, __: int, generator: torch.Generator) -> Table:
        images = torch.from_numpy(rows)
        view = torch.randint(n_views, images.shape, generator=generator)
        return table, view * n_images + images

    return stored
