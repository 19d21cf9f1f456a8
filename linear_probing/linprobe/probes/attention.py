"""Attention pooling of sets of vectors, and how it is trained: for attentive and MIL probes.

Shapes: B sets in a batch, of at most T vectors each, D wide; C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linprobe.config import AttentionSettings
from linprobe.probes.kinds import losses, outputs, targets
from linprobe.probes.watch import Watch
from linprobe.schedule import learning_rate_at
from linprobe.task import Outcome, ProbingTask, Rows
from retfiner.common.progress import track
from retfiner.common.seeds import generator

INIT_STD = 0.02


class CrossAttention(nn.Module):
    """One learned query attends to the tokens of an image, a linear layer follows.

    As the attentive probe of CAPI (Darcet et al., 2025): heads of 64, keys and values by a linear
    layer each, no MLP behind; V-JEPA's (Bardes et al., 2024) has one besides, and six times the
    weights.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64) if width % 64 == 0 else 1
        self.query = nn.Parameter(torch.empty(1, width))
        self.kv = nn.Linear(width, 2 * width)
        self.classify = nn.Linear(width, n_classes)

    def forward(self, sets: Tensor, there: Tensor) -> Tensor:
        """Score (B, T, D) sets, of which (B, T) says which vectors are there: (B, C) logits."""
        keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.kv(sets).chunk(2, dim=2)
        )
        query = self.query.expand(len(sets), 1, -1).unflatten(2, (self.heads, -1)).transpose(1, 2)
        mask = there[:, None, None]
        pooled = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.classify(pooled.transpose(1, 2).flatten(1))


class GatedAttention(nn.Module):
    """Gated attention-based multiple-instance learning (Ilse et al., 2018).

    a_k = softmax(w (tanh(V h_k) * sigmoid(U h_k))) weighs the instances, 128 wide as published; a
    linear layer scores their weighted mean.
    """

    def __init__(self, width: int, n_classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.tanh, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.weigh = nn.Linear(hidden, 1)
        self.classify = nn.Linear(width, n_classes)

    def attention(self, sets: Tensor, there: Tensor) -> Tensor:
        """Weigh the vectors of (B, T, D) sets: (B, T), each row sums to 1."""
        gated = self.tanh(sets).tanh() * self.gate(sets).sigmoid()
        return self.weigh(gated)[:, :, 0].masked_fill(~there, -torch.inf).softmax(dim=1)

    def forward(self, sets: Tensor, there: Tensor) -> Tensor:
        """Score (B, T, D) sets, of which (B, T) says which vectors are there: (B, C) logits."""
        return self.classify((self.attention(sets, there)[:, None] @ sets)[:, 0])


@dataclass(frozen=True)
class Sets:
    """N labelled sets of vectors.

    Attributes:
        labels: (N,) classes, or whatever else is predicted (``kind``).
        take: From indices of sets to (B, T, D) vectors and (B, T), which of them are there.
    """

    labels: Tensor
    take: Callable[[Tensor], tuple[Tensor, Tensor]]
    kind: str = "classes"

    def __len__(self) -> int:
        return len(self.labels)


class Fitted(NamedTuple):
    """A model at its best epoch, how it came to it, and its peak learning rate."""

    model: nn.Module
    learning_rate: float
    watch: Watch


def fit_best(
    build: Callable[[], nn.Module],
    train: Sets,
    val: Sets,
    rates: Sequence[float],
    settings: AttentionSettings,
    draws: Callable[[], torch.Generator],
    device: torch.device,
) -> Fitted:
    """Train with each learning rate, from the same beginning, and take the best on validation.

    The best has the highest balanced accuracy, on a tie the lowest loss.

    Raises:
        InputError: If training diverges.
    """
    fitted = [fit(build(), train, val, rate, settings, draws(), device) for rate in rates]
    return max(fitted, key=lambda one: (one.watch.score, -one.watch.loss))


def fit(
    model: nn.Module,
    train: Sets,
    val: Sets,
    peak: float,
    settings: AttentionSettings,
    draws: torch.Generator,
    device: torch.device,
) -> Fitted:
    """Train a model by AdamW with a half-cosine, and stop early by validation, as the linear probe.

    ``draws`` gives the initial weights and the order of the sets.

    Raises:
        InputError: If training diverges.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=INIT_STD, generator=draws)
    model.to(device)
    decay, epochs = settings.attention_weight_decay, settings.attention_epochs
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=decay)
    watch = Watch("--attention_lr", settings.attention_patience, train.kind)
    best = copy.deepcopy(model)
    for epoch in track(range(epochs), "training attention, at most", unit="epoch"):
        batches = torch.randperm(len(train), generator=draws).split(settings.attention_batch)
        total, rate = 0.0, peak
        for step, batch in enumerate(batches):
            done = epoch + step / len(batches)
            rate = learning_rate_at(done, peak=peak, lowest=0.0, warmup=0, epochs=epochs)
            optimiser.param_groups[0]["lr"] = rate
            sets, there = train.take(batch)
            logits = model(sets.to(device), there.to(device))
            wanted = targets(train.kind, train.labels[batch].to(device), logits.shape[1], 0.0)
            loss = losses(train.kind, logits, wanted.to(logits)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(batch) / len(train)
        scores = probabilities(model, val, settings.attention_batch)
        if watch.is_best(rate, total, scores, val.labels.numpy()):
            best.load_state_dict(model.state_dict())
        elif watch.is_over:
            break
    return Fitted(best, peak, watch)


def probabilities(model: nn.Module, sets: Sets, batch: int) -> np.ndarray:
    """Score sets: (N, C) float64 probabilities, or values."""
    device = next(model.parameters()).device
    scores = []
    with torch.inference_mode():
        for rows in torch.arange(len(sets)).split(batch):
            vectors, there = sets.take(rows)
            logits = model(vectors.to(device), there.to(device))
            scores.append(outputs(sets.kind, logits.double()).cpu())
    return torch.cat(scores).numpy()


def probe_sets(
    task: ProbingTask,
    subsets: dict[int, Rows],
    build: Callable[[], nn.Module],
    train_of: Callable[[Rows], Sets],
    val: Sets,
    test: Sets,
) -> dict[int, Outcome]:
    """Train a model for each seed, and score the test sets.

    Raises:
        InputError: If training diverges.
    """
    config, outcomes = task.config, {}
    for seed, rows in subsets.items():
        draws = partial(generator, seed, "attention")
        fitted = fit_best(build, train_of(rows), val, config.attention_lr, config, draws,
                          task.extractor.device)  # fmt: skip
        scores = probabilities(fitted.model, test, config.attention_batch)
        weights = {name: tensor.cpu() for name, tensor in fitted.model.state_dict().items()}
        context = {**fitted.watch.context, "learning_rate": fitted.learning_rate}
        outcomes[seed] = Outcome(scores, fitted.watch.curve, weights, context)
    return outcomes
