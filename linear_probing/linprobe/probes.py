"""The kinds of probe, each from the same features to probabilities on the test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linprobe.head import HeadSettings, Table, TrainedHead, TrainingSet, train_heads
from linprobe.knn import knn_probabilities
from linprobe.logistic import fit_logistic
from linprobe.schedule import batch_size_of
from linprobe.task import ProbingTask, Rows
from retfiner.common.errors import InputError
from retfiner.common.files import save_torch
from retfiner.common.seeds import generator

Source = Callable[[int, torch.Generator], Table]


@dataclass(frozen=True)
class Outcome:
    """What a probe came to, for one seed.

    Attributes:
        probabilities: (N, C) on the test images.
        curve: Rows of the learning curve.
        head: Weights of a linear layer, ready for ``torch.save``; None where there is none.
        context: Values that were found on the way.
    """

    probabilities: NDArray[np.float64]
    curve: list[dict[str, float]] = field(default_factory=list)
    head: dict[str, Tensor] | None = None
    context: dict[str, Any] = field(default_factory=dict)


def probe_linear(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Train a linear head for each seed, at once where their training sets are equally large.

    Args:
        task: Data set and features.
        subsets: Training images of each seed.

    Returns:
        An outcome for each seed.

    Raises:
        InputError: If the batch is larger than a training set, or training diverges.
    """
    outcomes: dict[int, Outcome] = {}
    for size in sorted({len(rows) for rows in subsets.values()}):
        seeds = [seed for seed, rows in subsets.items() if len(rows) == size]
        outcomes |= _linear_at_once(task, {seed: subsets[seed] for seed in seeds}, size)
    return outcomes


def _linear_at_once(task: ProbingTask, subsets: dict[int, Rows], size: int) -> dict[int, Outcome]:
    config, device = task.config, task.extractor.device
    batch = config.batch_size or batch_size_of(size, config.batch_size_max, config.batch_share)
    if batch > size:
        raise InputError(
            f"{task.data.name}: --batch_size {batch} is more than there are training images",
            expected=f"at most {size}",
            remedy="leave --batch_size out: the published rule fits the batch to the data",
        )
    tables, n_views = _tables(task, subsets)
    train_labels = task.labels("train")
    sets = [
        TrainingSet(train_labels[torch.from_numpy(rows)], tables[seed], generator(seed, "head"))
        for seed, rows in subsets.items()
    ]
    numbers = {f.name: getattr(config, f.name) for f in fields(HeadSettings)}
    numbers["weight_decay"] = config.decay_of(task.extractor.backbone.spec.name)
    heads = train_heads(
        sets,
        task.clean("val").to(device),
        task.labels("val"),
        task.n_classes,
        batch,
        HeadSettings(**numbers),
    )
    test = task.clean("test")
    found = {"batch_size": batch, "views": n_views}
    return {seed: _outcome_of(head, test, found) for seed, head in zip(subsets, heads, strict=True)}


def _outcome_of(head: TrainedHead, test: Tensor, found: dict[str, Any]) -> Outcome:
    weights = {"weight": head.weight.cpu(), "bias": head.bias.cpu()}
    context = {**found, "best_epoch": head.best_epoch, "epochs_trained": head.epochs}
    return Outcome(head.probabilities(test).numpy(), head.curve, weights, context)


def _tables(task: ProbingTask, subsets: dict[int, Rows]) -> tuple[dict[int, Source], int | None]:
    """Give each seed its source of training features; and the number of views, where stored."""
    if task.config.online_augmentation:
        return {seed: _fresh_table(task, rows, seed) for seed, rows in subsets.items()}, None
    views = task.views()
    n_views, n_images = views.shape[:2]
    table = views.flatten(0, 1).to(task.extractor.device)
    sources = {s: _stored_table(table, n_views, n_images, rows) for s, rows in subsets.items()}
    return sources, n_views


def _fresh_table(task: ProbingTask, rows: Rows, seed: int) -> Source:
    def table(epoch: int, _: torch.Generator) -> Table:
        return task.fresh(rows, seed, epoch).to(task.extractor.device), torch.arange(len(rows))

    return table


def _stored_table(features: Tensor, n_views: int, n_images: int, rows: Rows) -> Source:
    images = torch.from_numpy(rows)

    def table(_: int, generator: torch.Generator) -> Table:
        view = torch.randint(n_views, images.shape, generator=generator)
        return features, view * n_images + images

    return table


def probe_knn(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Let neighbours vote, among each seed's training images as they are.

    Args:
        task: Data set and features.
        subsets: Training images of each seed.

    Returns:
        An outcome for each seed.
    """
    config = task.config
    train, labels, test = task.clean("train"), task.labels("train"), task.clean("test")

    def one(rows: Rows) -> Outcome:
        chosen = torch.from_numpy(rows)
        votes = knn_probabilities(
            train[chosen],
            labels[chosen],
            test,
            task.n_classes,
            config.neighbours,
            config.knn_temperature,
        )
        used = min(config.neighbours, len(rows))
        return Outcome(votes.numpy(), context={"neighbours_used": used})

    return _once_per_subset(subsets, one)


def probe_logistic(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Fit a logistic regression to each seed's training images as they are.

    Args:
        task: Data set and features.
        subsets: Training images of each seed.

    Returns:
        An outcome for each seed.
    """
    splits = task.data.splits
    train, val, test = (task.clean(name).numpy() for name in splits)

    def one(rows: Rows) -> Outcome:
        head = fit_logistic(
            train[rows],
            splits["train"].labels[rows],
            val,
            splits["val"].labels,
            task.n_classes,
            task.config.logistic_c,
        )
        weights = {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
        return Outcome(head.probabilities(test), head.curve, weights, {"c": head.c})

    return _once_per_subset(subsets, one)


def _once_per_subset(
    subsets: dict[int, Rows], one: Callable[[Rows], Outcome]
) -> dict[int, Outcome]:
    """Run a probe without randomness of its own once for all seeds with the same images."""
    done: dict[bytes, Outcome] = {}
    outcomes = {}
    for seed, rows in subsets.items():
        key = rows.tobytes()
        if key not in done:
            done[key] = one(rows)
        outcomes[seed] = done[key]
    return outcomes


PROBES: dict[str, Callable[[ProbingTask, dict[int, Rows]], dict[int, Outcome]]] = {
    "linear": probe_linear,
    "knn": probe_knn,
    "logistic": probe_logistic,
}
"""Every kind of probe by the name ``--probe`` takes."""
RANDOM = ("linear",)
"""The kinds that draw random numbers themselves; others differ by their training images alone."""


def save_head(head: dict[str, Tensor], about: dict[str, Any]) -> Callable[[Path], None]:
    """Make the function that writes a head beside a run's metrics.

    Args:
        head: ``weight`` (C, F) and ``bias`` (C,).
        about: What a reader needs to use them.
    """

    def write(path: Path) -> None:
        save_torch({**head, **about}, path)

    return write
