"""The linear head: published protocol, heads of several seeds trained at once.

Shapes: S heads, B images in a batch, C classes, F features. A head's own generator draws its
weights, the order of its images and their views, so that it comes out the same whether trained
alone or beside others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from linprobe.config import LinearSettings
from linprobe.probes.kinds import losses, outputs, targets
from linprobe.probes.watch import Watch
from linprobe.schedule import learning_rate_at
from retfiner.common.errors import InputError
from retfiner.common.progress import track

Table = tuple[Tensor, Tensor]
"""Features (M, F), and the row (N,) in which each training image is to be found this epoch."""


@dataclass(frozen=True)
class TrainingSet:
    """What one head is trained on, and what draws all that is random about it.

    Attributes:
        labels: (N,) class of each training image.
        table: Gives the features of an epoch (from 1), drawing views from the generator.
        generator: Of this head alone.
    """

    labels: Tensor
    table: Callable[[int, torch.Generator], Table]
    generator: torch.Generator


@dataclass
class TrainedHead:
    """A head, (C, F) and (C,), at its best epoch, and how it came to it."""

    weight: Tensor
    bias: Tensor
    watch: Watch

    def probabilities(self, features: Tensor) -> Tensor:
        """Score (N, F) features: (N, C) float64 probabilities, or values, on the CPU."""
        logits = F.linear(features.to(self.weight), self.weight, self.bias)
        return outputs(self.watch.kind, logits.double()).cpu()


class _Heads:
    """Parameters of S heads and their AdamW, which shrinks as heads stop."""

    def __init__(self, weight: Tensor, decay: float) -> None:
        self.parameters = [weight, weight.new_zeros(weight.shape[:2])]
        self.optimiser = torch.optim.AdamW(self.parameters, weight_decay=decay)

    def keep(self, rows: list[int]) -> None:
        kept = {
            p[rows]: {name: v[rows] if v.ndim else v for name, v in self.optimiser.state[p].items()}
            for p in self.parameters
        }
        self.parameters = self.optimiser.param_groups[0]["params"] = list(kept)
        self.optimiser.state = defaultdict(dict, kept)

    def logits(self, features: Tensor) -> Tensor:
        """Score (S, B, F) or, the same for all heads, (B, F) features: (S, B, C)."""
        weight, bias = self.parameters
        return torch.matmul(features, weight.transpose(1, 2)) + bias[:, None]

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()


def train_heads(
    sets: Sequence[TrainingSet],
    val_features: Tensor,
    val_labels: Tensor,
    n_classes: int,
    batch_size: int,
    settings: LinearSettings,
    kind: str = "classes",
) -> list[TrainedHead]:
    """Train a head on each training set, all at once; each stops by itself.

    An incomplete last batch of an epoch is left out; the next epoch shuffles anew. Of validation
    features (V, F) and labels (V,), and classes also without a training image, it gives the heads
    at their best epochs, in the order of the sets.

    Raises:
        InputError: If the sets differ in size, or training diverges.
    """
    sizes = {len(one.labels) for one in sets}
    if len(sizes) != 1:
        raise InputError("Heads trained at once need equally many images", got=sorted(sizes))
    weight = torch.zeros(len(sets), n_classes, val_features.shape[1], dtype=val_features.dtype)
    if settings.init_std > 0:
        for own, one in zip(weight, sets, strict=True):
            torch.nn.init.trunc_normal_(own, std=settings.init_std, generator=one.generator)
    heads = _Heads(weight.to(val_features.device), settings.weight_decay or 0.0)
    watch = partial(Watch, "--learning_rate", settings.patience, kind, settings.patience_start,
                    settings.min_delta)  # fmt: skip
    pairs = zip(*heads.parameters, strict=True)
    trained = [TrainedHead(w.clone(), b.clone(), watch()) for w, b in pairs]
    active = list(range(len(sets)))
    epochs = range(1, settings.epochs + 1)
    truth = val_labels.cpu().numpy()
    for epoch in track(epochs, "training heads, at most", settings.epochs, "epoch"):
        own = [sets[k] for k in active]
        rate, lost = _train_epoch(heads, own, epoch, batch_size, settings, kind)
        scores = outputs(kind, heads.logits(val_features).double()).cpu().numpy()
        for row, k in enumerate(active):
            if trained[k].watch.is_best(rate, lost[row], scores[row], truth):
                trained[k].weight, trained[k].bias = (p[row].clone() for p in heads.parameters)
        going = [row for row, k in enumerate(active) if not trained[k].watch.is_over]
        if not going:
            break
        if len(going) < len(active):
            heads.keep(going)
            active = [active[row] for row in going]
    return trained


def _train_epoch(
    heads: _Heads, sets: list[TrainingSet], epoch: int, batch_size: int, settings: LinearSettings,
    kind: str,
) -> tuple[float, list[float]]:  # fmt: skip
    """Train for an epoch; return the last learning rate and each head's mean loss."""
    n = len(sets[0].labels)
    tables = [one.table(epoch, one.generator) for one in sets]
    orders = [torch.randperm(n, generator=one.generator) for one in sets]
    weight = heads.parameters[0]
    # In the order of this epoch, and sent to the device once: a step only takes the next ones.
    shuffled = [
        (table, rows[order].to(table.device))
        for (table, rows), order in zip(tables, orders, strict=True)
    ]
    labels = torch.stack([one.labels[order] for one, order in zip(sets, orders, strict=True)])
    every = targets(kind, labels, weight.shape[1], settings.label_smoothing).to(weight)
    steps = n // batch_size
    rate_at = partial(
        learning_rate_at, peak=settings.learning_rate, lowest=settings.min_learning_rate,
        warmup=settings.warmup_epochs, epochs=settings.epochs,
    )  # fmt: skip
    features = weight.new_empty(len(sets), batch_size, weight.shape[2])
    total = weight.new_zeros(len(sets))
    rate = 0.0
    for step in range(steps):
        rate = rate_at(epoch - 1 + step / steps)
        batch = slice(step * batch_size, (step + 1) * batch_size)
        for row, (table, rows) in enumerate(shuffled):
            torch.index_select(table, 0, rows[batch], out=features[row])
        wanted, logits = every[:, batch], heads.logits(features)
        total += losses(kind, logits, wanted).mean(dim=1)
        # The gradient of the loss with respect to the logits, in closed form.
        slope = (outputs(kind, logits) - wanted) / batch_size
        gradients = (slope.transpose(1, 2) @ features, slope.sum(dim=1))
        heads.step(gradients, rate)
    return rate, (total / steps).tolist()
