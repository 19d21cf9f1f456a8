"""Watch over the encoder on held-out patients: is it better than the one the run began with?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.common.processes import count_workers
from retfiner.common.progress import progress, track
from retfiner.common.seeds import derive_seed
from retfiner.data.datamodule import Pairs, PairsDataModule
from retfiner.data.manifest import Manifest
from retfiner.training.guard import FloatArray, compare, neighbour_agreement, report_vectors
from retfiner.training.module import RefinementModule
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.preprocessing import EvaluationTransform

MOST_QUERIES, MOST_SCANS = 500, 1000
"""Validation scans that are asked about, and all scans among which neighbours are looked for."""


class EncoderGuard(pl.Callback):
    """Log ``guard/refined``: how alike the reports of a held-out scan and of its neighbours are.

    Neighbours are scans of other patients, of training and of validation, by the features that a
    linear probe would get. Measured before training and after each epoch. Scans that cannot be
    decoded are left out: training says what is wrong with them.

    Args:
        train: Pairs to train on.
        validation: Pairs of other patients, with the patients known.
        transform: What turns a B-scan into the backbone's input.
        batch_size: Scans encoded at a time.
        seed: Which scans are taken where there are more than enough, and what intervals draw.
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
        self.scans = [*queries.images, *others.images]
        self.reports = [*queries.reports, *others.reports]
        self.patients = [*(queries.patients or []), *(others.patients or [])]
        self.count = len(queries)
        self.transform = transform
        self.batch_size = batch_size
        self.seed = seed
        self.images: list[Tensor] = []
        self.base: FloatArray | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, compare with the first time, and log what was found."""
        assert isinstance(pl_module, RefinementModule)
        if not self.images:
            self._read(trainer.is_global_zero)
        if self.count == 0 or len(set(self.patients)) < 2:
            return
        features = self._features(trainer, pl_module)
        vectors = report_vectors(self.reports)
        asked = range(self.count)
        refined = neighbour_agreement(features, vectors, self.patients, asked)
        if self.base is None or len(self.base) != self.count:  # or a file went since the run began
            self.base = refined
        noise = np.random.default_rng(derive_seed(self.seed, "guard", "chance"))
        anywhere = noise.standard_normal((len(features), 64))
        change = compare(
            self.base,
            refined,
            self.patients[: self.count],
            chance=float(neighbour_agreement(anywhere, vectors, self.patients, asked).mean()),
            generator=np.random.default_rng(derive_seed(self.seed, "guard", "interval")),
        )
        for name, value in change._asdict().items():
            pl_module.log(f"guard/{name}", float(value))
        # Each checkpoint carries what was found of its weights, or of those of an earlier step.
        pl_module.description["guard"] = {**change._asdict(), "step": trainer.global_step}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Carry on what was found last, until it is measured anew."""
        assert isinstance(pl_module, RefinementModule)
        if "guard" in checkpoint["retfiner"]:
            pl_module.description["guard"] = checkpoint["retfiner"]["guard"]

    def _read(self, shows_progress: bool) -> None:
        """Decode the scans once, to 8 bit: every epoch looks at the same."""
        with ThreadPoolExecutor(count_workers(None)) as pool:
            decoded = pool.map(self._decode, self.scans)
            title = "reading scans for the guard"
            found = list(track(decoded, title, len(self.scans), shown=shows_progress))
        kept = [i for i, image in enumerate(found) if image is not None]
        self.images = [image for image in found if image is not None]
        self.reports = [self.reports[i] for i in kept]
        self.patients = [self.patients[i] for i in kept]
        self.count = sum(i < self.count for i in kept)

    def _decode(self, scan: ImageAddress) -> Tensor | None:
        try:
            return (self.transform.resized(read_image(scan)) * 255).round().to(torch.uint8)
        except InputError:
            return None

    def _features(self, trainer: pl.Trainer, module: RefinementModule) -> FloatArray:
        """Encode all scans, in every process: split weights are gathered by all together."""
        device = trainer.strategy.root_device
        found = []
        with progress("encoding scans for the guard", len(self.images)) as bar:
            for start in range(0, len(self.images), self.batch_size):
                part = self.images[start : start + self.batch_size]
                images = torch.stack([self.transform.normalised(image / 255) for image in part])
                with torch.no_grad(), trainer.precision_plugin.forward_context():
                    found.append(module.probing_features(images.to(device)).float().cpu())
                bar.update(len(part))
        return torch.cat(found).double().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return what the base encoder's neighbours were worth, for a checkpoint."""
        return {"base": None if self.base is None else torch.from_numpy(self.base)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the encoder that the run began with."""
        base = state_dict["base"]
        self.base = None if base is None else base.numpy()


def build_guard(batches: PairsDataModule, batch_size: int) -> list[EncoderGuard]:
    """Return the guard, or none where reports or patients are not at hand to go by.

    It encodes ``batch_size`` scans at a time.
    """
    if batches.pairs.manifests is None or lacks_for_guard(batches.pairs) is not None:
        return []
    train, validation = batches.pairs.manifests
    transform = batches.pairs.validation.transform  # type: ignore[attr-defined]
    return [EncoderGuard(train, validation, transform, batch_size, batches.seed)]


def lacks_for_guard(pairs: Pairs) -> str | None:
    """Say what data lack for the guard; None where they lack nothing."""
    if pairs.manifests is None:
        return "reports and patients are read from a table (--train_csv) only"
    if any(table.patients is None for table in pairs.manifests):
        return "it is not known which scans are of one patient (--patient_column none)"
    return None


def _sample(manifest: Manifest, most: int, generator: np.random.Generator) -> Manifest:
    if len(manifest) <= most:
        return manifest
    return manifest.select(sorted(generator.choice(len(manifest), most, replace=False).tolist()))
