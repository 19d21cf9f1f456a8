"""Fine-tuning: the encoder trains too, wholly, its last blocks, or by LoRA.

As RETFound's release fine-tunes (Zhou et al., 2023; BEiT's layer decay by way of MAE): AdamW,
learning rates that fall from block to block, warm-up and half-cosine, stochastic depth, label
smoothing. Images are augmented as in the linear probe, which is how MIRAGE's release does it;
RETFound's RandAugment and erasing are left out.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linprobe.datasets import Split
from linprobe.features import View
from linprobe.probes.kinds import losses, outputs, targets
from linprobe.probes.watch import Watch
from linprobe.schedule import learning_rate_at
from linprobe.task import Outcome, ProbingTask, Rows
from retfiner.common.files import save_torch
from retfiner.common.predictions import fingerprint
from retfiner.common.progress import track
from retfiner.common.seeds import derive_seed, generator
from retfiner.vision import Backbone
from retfiner.vision.adaptation import add_lora, set_drop_path, unfreeze_last, vision_groups

SAVE_EVERY = 300.0
"""Seconds between two states that an interrupted training goes on from."""
WATCHED = ("best_epoch", "score", "loss", "waited", "curve")
"""What of early stopping goes into such a state."""
LORA_SCALE = 2.0
"""alpha / rank, the usual choice."""
INIT_STD = 2e-5
"""Of the head's weights, as in RETFound's release and the linear probe."""


class Tuned(nn.Module):
    """An encoder of its own, adapted, and a linear head on the features that probes see."""

    def __init__(self, task: ProbingTask, seed: int) -> None:
        super().__init__()
        config, frozen = task.config, task.extractor.backbone
        self.encoder = copy.deepcopy(frozen.encoder)
        self.backbone: Backbone = replace(frozen, encoder=self.encoder)
        self.method = task.extractor.method
        with _drawing(task.extractor.device, seed, "adapt"):
            if config.adapt == "lora":
                add_lora(self.encoder, config.lora_rank, LORA_SCALE)
            else:
                blocks = len(self.backbone.blocks)
                last = config.unfreeze_last if config.adapt == "last" else blocks
                unfreeze_last(self.encoder, last)
            if config.finetune_drop_path:
                set_drop_path(self.encoder, config.finetune_drop_path)
        self.head = nn.Linear(task.extractor.feature_width, task.n_classes)
        nn.init.trunc_normal_(self.head.weight, std=INIT_STD, generator=generator(seed, "head"))
        nn.init.zeros_(self.head.bias)
        self.to(task.extractor.device)

    def forward(self, images: Tensor) -> Tensor:
        """Score (B, C, S, S) normalised images: (B, classes) logits."""
        return self.head(self.backbone.features(images, self.method))

    def trained(self) -> dict[str, Tensor]:
        """Give copies of what trains, by name."""
        pairs = self.named_parameters()
        return {name: p.detach().clone() for name, p in pairs if p.requires_grad}

    def restore(self, trained: dict[str, Tensor]) -> None:
        """Take back what :meth:`trained` gave."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(trained[name])

    def groups(self, rate: float, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
        """Give the optimiser's groups: rates by layer, no decay of biases and norms."""
        layers = vision_groups(self.encoder, rate, layer_decay)
        layers.append({"params": list(self.head.parameters()), "lr": rate})
        return [
            {"params": chosen, "lr": g["lr"], "peak": g["lr"], "weight_decay": decay}
            for g in layers
            for decay, flat in ((weight_decay, False), (0.0, True))
            if (chosen := [p for p in g["params"] if (p.ndim <= 1) == flat])
        ]


@contextmanager
def _drawing(device: torch.device, *stream: int | str) -> Iterator[None]:
    """Let what draws from the global generators draw from a stream of its own, and restore them."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*stream) % 2**63)
        yield


class Finetuning:
    """One seed's training, which goes on where it was interrupted."""

    def __init__(self, task: ProbingTask, seed: int, rows: Rows) -> None:
        self.task, self.seed, self.config = task, seed, task.config
        self.train = task.data.splits["train"].subset(rows)
        self.labels = task.labels("train")[torch.from_numpy(rows)]
        self.model = Tuned(task, seed)
        config = self.config
        decay = 1.0 if config.adapt == "lora" else config.layer_decay
        groups = self.model.groups(config.finetune_lr, decay, config.finetune_weight_decay)
        self.optimiser = torch.optim.AdamW(groups)
        self.kind = task.data.task
        self.watch = Watch("--finetune_lr", config.finetune_patience, self.kind,
                           config.finetune_warmup)  # fmt: skip
        self.best = self.model.trained()
        asked = {**config.probe_settings(self.model.backbone.spec.name), "seed": seed,
                 "encoder": task.extractor.digest, "method": self.model.method,
                 "data": task.data.sha256, "rows": rows.tolist()}  # fmt: skip
        self.place = Path(config.results) / ".unfinished" / f"{fingerprint(asked)[:16]}.pt"

    def run(self) -> Outcome:
        """Train, and score the test images at the best epoch.

        Raises:
            InputError: If training diverges or an image cannot be read.
        """
        self._resume()
        first, saved = len(self.watch.curve) + 1, time.monotonic()
        epochs = range(first, self.config.finetune_epochs + 1)
        title = f"{self.task.data.name}: fine-tuning, seed {self.seed}, at most"
        for epoch in track(epochs, title, len(epochs), "epoch"):
            if self.watch.is_over:
                break
            self._epoch(epoch)
            if time.monotonic() - saved >= SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self.model.restore(self.best)
        scores = self._score(self.task.data.splits["test"])
        self.place.unlink(missing_ok=True)
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        context = {**self.watch.context, "parameters_trained": trained}
        return Outcome(scores, self.watch.curve, context=context)

    def _epoch(self, epoch: int) -> None:
        """Train for an epoch and validate."""
        config, device = self.config, self.task.extractor.device
        order = torch.randperm(len(self.train), generator=generator(self.seed, "order", epoch))
        shuffled = self.train.subset(order.numpy())
        labels = self.labels[order].to(device)
        view = View(self.task.augmented, ("finetune", self.seed, epoch))
        size, total, rate = config.finetune_batch, 0.0, 0.0
        steps = -(-len(shuffled) // size)
        batches = self.task.extractor.batches(shuffled, view, size)
        self.model.train()
        with _drawing(device, self.seed, "depth", epoch):
            for step, images in enumerate(batches):
                share = learning_rate_at(epoch - 1 + step / steps, peak=1.0, lowest=0.0,
                                         warmup=config.finetune_warmup,
                                         epochs=config.finetune_epochs)  # fmt: skip
                for group in self.optimiser.param_groups:
                    group["lr"] = rate = share * group["peak"]
                wanted = labels[step * size : (step + 1) * size]
                logits = self.model(images.to(device))
                aims = targets(self.kind, wanted, logits.shape[1], config.finetune_smoothing)
                loss = losses(self.kind, logits, aims.to(logits)).mean()
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                total += float(loss.detach()) * len(wanted) / len(shuffled)
        val = self._score(self.task.data.splits["val"])
        if self.watch.is_best(rate, total, val, self.task.labels("val").numpy()):
            self.best = self.model.trained()

    def _score(self, split: Split) -> np.ndarray:
        """Score a split's images as they are: (N, C) float64 probabilities, or values."""
        extractor, view = self.task.extractor, self.task.clean_view
        self.model.eval()
        with torch.inference_mode():
            batches = extractor.batches(split, view, extractor.batch_size)
            logits = [self.model(images.to(extractor.device)).double().cpu() for images in batches]
        return outputs(self.kind, torch.cat(logits)).numpy()

    def _save(self) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.trained(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "watch": {name: getattr(self.watch, name) for name in WATCHED},
        }
        save_torch(state, self.place)

    def _resume(self) -> None:
        """Go on from a saved state, if there is one of just these settings, data and weights."""
        if not self.place.is_file():
            return
        state = torch.load(self.place, map_location="cpu", weights_only=True)
        self.model.restore(state["model"])
        self.best = {n: t.to(self.task.extractor.device) for n, t in state["best"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        for name in WATCHED:
            setattr(self.watch, name, state["watch"][name])


def probe_finetune(task: ProbingTask, subsets: dict[int, Rows]) -> dict[int, Outcome]:
    """Fine-tune a copy of the encoder for each seed.

    Raises:
        InputError: If the encoder cannot be adapted so, training diverges, or an image cannot be
            read.
    """
    return {seed: Finetuning(task, seed, rows).run() for seed, rows in subsets.items()}
