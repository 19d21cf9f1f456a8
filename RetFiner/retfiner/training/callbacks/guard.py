"""Watch over the encoder on held-out patients: is it better than the one the run began with?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from retfiner.common.seeds import derive_seed
from retfiner.data.datamodule import PairsDataModule
from retfiner.data.manifest import Manifest
from retfiner.data.pairs import ImageCaptionDataset
from retfiner.training.guard import (
    Change,
    FloatArray,
    compare,
    neighbour_agreement,
    report_vectors,
)
from retfiner.training.module import RefinementModule
from retfiner.vision.preprocessing import EvaluationTransform

MOST_QUERIES, MOST_SCANS = 500, 2000
"""Validation scans that are asked about, and all scans among which neighbours are looked for."""


class EncoderGuard(pl.Callback):
    """Log ``guard/refined``: how alike the reports of a held-out scan and of its neighbours are.

    Neighbours are scans of other patients, of training and of validation, by the features that a
    linear probe would get. Measured before training and after each epoch.

    Args:
        train: Pairs to train on.
        validation: Pairs of other patients, with the patients known.
        transform: What turns a B-scan into the backbone's input.
        batch_size: Scans encoded at a time.
        seed: Which scans are taken where there are more than enough, and what intervals draw.

    Attributes:
        change: What was found at the last validation, against the first.
    """

    def __init__(
        self,
        train: Manifest,
        validation: Manifest,
        transform: EvaluationTransform,
        batch_size: int,
        seed: int,
    ) -> None:
        generator = np.random.default_rng(derive_seed(seed, "guard"))
        queries = _sample(validation, MOST_QUERIES, generator)
        others = _sample(train, MOST_SCANS - len(queries), generator)
        # Decoded once: every epoch looks at the same scans.
        self.scans = [ImageCaptionDataset(part, transform, True) for part in (queries, others)]
        self.patients = [*(queries.patients or []), *(others.patients or [])]
        self.queries = range(len(queries))
        self.vectors = report_vectors([*queries.reports, *others.reports])
        self.batch_size = batch_size
        self.seed = seed
        self.base: FloatArray | None = None
        self.change: Change | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, compare with the first time, and log both."""
        assert isinstance(pl_module, RefinementModule)
        features = self._features(trainer, pl_module)
        refined = self._agreement(features)
        self.base = refined if self.base is None else self.base
        noise = np.random.default_rng(derive_seed(self.seed, "guard", "chance"))
        self.change = compare(
            self.base,
            refined,
            [self.patients[i] for i in self.queries],
            chance=float(self._agreement(noise.standard_normal((len(features), 64))).mean()),
            generator=np.random.default_rng(derive_seed(self.seed, "guard", "interval")),
        )
        for name, value in self.change._asdict().items():
            pl_module.log(f"guard/{name}", value)

    def _agreement(self, features: FloatArray) -> FloatArray:
        return neighbour_agreement(features, self.vectors, self.patients, self.queries)

    def _features(self, trainer: pl.Trainer, module: RefinementModule) -> FloatArray:
        """Encode all scans, in every process: split weights are gathered by all together."""
        device = trainer.strategy.root_device
        found = []
        for scans in self.scans:
            for images, _ in DataLoader(scans, self.batch_size):
                with torch.no_grad(), trainer.precision_plugin.forward_context():
                    found.append(module.probing_features(images.to(device)).float().cpu())
        return torch.cat(found).double().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return what the base encoder's neighbours were worth, for a checkpoint."""
        return {"base": None if self.base is None else torch.from_numpy(self.base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the encoder that the run began with."""
        base = state_dict["base"]
        self.base = None if base is None else base.numpy()


def build_guard(batches: PairsDataModule) -> list[EncoderGuard]:
    """Return the guard, or none where reports or patients are not at hand to go by.

    Args:
        batches: The data of the run.
    """
    if batches.pairs.manifests is None:
        return []
    train, validation = batches.pairs.manifests
    if train.patients is None or validation.patients is None:
        return []
    transform = batches.pairs.train.transform  # type: ignore[attr-defined]
    return [EncoderGuard(train, validation, transform, batches.batch_size, batches.seed)]


def _sample(manifest: Manifest, most: int, generator: np.random.Generator) -> Manifest:
    if len(manifest) <= most:
        return manifest
    return manifest.select(sorted(generator.choice(len(manifest), most, replace=False).tolist()))
