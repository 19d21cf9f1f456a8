"""From settings to the loaders of training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from retfiner.batch import Batch, Joined, join_reports
from retfiner.common.errors import InputError
from retfiner.common.processes import available_cores, leave_signals_alone
from retfiner.common.seeds import generator
from retfiner.config import RefineConfig
from retfiner.data.custom import UserDataset, takes_split
from retfiner.data.manifest import (
    Manifest,
    read_manifest,
    require_disjoint_patients,
    split_by_patient,
)
from retfiner.data.pairs import (
    Collate,
    Collated,
    EvenBatches,
    ImageCaptionDataset,
    NumberedPairs,
    ResumableLoader,
)
from retfiner.distributed import exchange, rank
from retfiner.vision.preprocessing import EvaluationTransform


@dataclass(frozen=True)
class Pairs:
    """The two parts of the data.

    Attributes:
        train: Pairs to train on.
        validation: Pairs of other patients.
        manifests: Their tables, where they came from a CSV.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    manifests: tuple[Manifest, Manifest] | None

    @property
    def train_numbers(self) -> list[int] | None:
        """What the pairs to train on are called in messages: rows of the CSV, or items."""
        return self._numbers(0, self.train)

    @property
    def validation_numbers(self) -> list[int] | None:
        """What the pairs to validate on are called in messages."""
        return self._numbers(1, self.validation)

    def _numbers(self, part: int, dataset: Dataset[Any]) -> list[int] | None:
        if self.manifests is not None:
            return self.manifests[part].rows
        return list(dataset.indices) if isinstance(dataset, Subset) else None

    @property
    def train_size(self) -> int:
        """Number of pairs to train on."""
        return len(self.train)  # type: ignore[arg-type]

    @property
    def validation_size(self) -> int:
        """Number of pairs to validate on."""
        return len(self.validation)  # type: ignore[arg-type]


def load_pairs(config: RefineConfig, transform: EvaluationTransform) -> Pairs:
    """Read, check and split the data that the settings name.

    Args:
        config: The settings.
        transform: What turns a B-scan into the backbone's input.

    Raises:
        InputError: If the data cannot be used, or a part has fewer than two pairs.
    """
    pairs = _from_dataset(config, transform) if config.dataset else _from_csv(config, transform)
    for part, size in (("training", pairs.train_size), ("validation", pairs.validation_size)):
        if size < 2:
            raise InputError(
                f"the {part} part is too small",
                got=f"{size} pair{'s' if size != 1 else ''}",
                expected="at least two: a batch of one has nothing to contrast",
                remedy="more pairs or patients, or another --val_fraction",
            )
    return pairs


def _from_csv(config: RefineConfig, transform: EvaluationTransform) -> Pairs:
    assert config.train_csv is not None
    read = partial(
        read_manifest,
        image_root=config.image_root,
        image_column=config.image_column,
        report_column=config.report_column,
        patient_column=config.patient_column,
        slice_column=config.slice_column,
        on_bad_row=config.on_bad_row,
    )
    train = read(config.train_csv)
    if config.val_csv is None:
        train, validation = split_by_patient(train, config.val_fraction, config.seed)
    else:
        validation = read(config.val_csv)
    require_disjoint_patients(train, validation)
    return Pairs(
        ImageCaptionDataset(train, transform, config.image_cache),
        ImageCaptionDataset(validation, transform, config.image_cache),
        (train, validation),
    )


def _from_dataset(config: RefineConfig, transform: EvaluationTransform) -> Pairs:
    assert config.dataset is not None
    offered = {"transform": transform, "image_root": config.image_root}
    if takes_split(config.dataset):
        parts = [UserDataset(config.dataset, split=s, **offered) for s in ("train", "validation")]
        return Pairs(parts[0], parts[1], None)
    whole = UserDataset(config.dataset, **offered)
    patients = getattr(whole.pairs, "patients", None)
    if patients is not None and len(patients) != len(whole):
        raise InputError(
            f"`patients` of {config.dataset} does not fit its items",
            got=f"{len(patients)} patients for {len(whole)} items",
            expected="one name an item",
        )
    if patients is None and config.patient_column != "none":
        raise InputError(
            f"{config.dataset} cannot be split by patient",
            got="a class without an argument `split` and without an attribute `patients`",
            expected="`split` ('train' or 'validation'), or `patients`, one name an item",
            remedy="--patient_column none splits item by item, patients on both sides included",
        )
    names = [""] * len(whole)
    table = Manifest(
        source=config.dataset,  # type: ignore[arg-type]
        images=names,  # type: ignore[arg-type]
        reports=names,
        patients=None if patients is None else [str(p) for p in patients],
        rows=list(range(len(whole))),
        skipped=[],
    )
    train, validation = split_by_patient(table, config.val_fraction, config.seed)
    return Pairs(Subset(whole, train.rows), Subset(whole, validation.rows), None)


class PairsDataModule(pl.LightningDataModule):
    """Loaders of image-report batches.

    Args:
        pairs: The two parts of the data.
        collate: How a batch is put together.
        config: Batch size, workers, seed, and what to do with unreadable pairs.

    Attributes:
        left_out: Pairs that could not be decoded and are trained without, with the reason of each.
    """

    def __init__(self, pairs: Pairs, collate: Collate, config: RefineConfig) -> None:
        super().__init__()
        self.pairs = pairs
        self.collate = collate
        self.config = config
        self.left_out: dict[str, str] = {}
        self._training: ResumableLoader | None = None
        self._resumed: dict[str, int] = {}

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches in another order each epoch."""
        numbered = NumberedPairs(self.pairs.train, self.pairs.train_numbers)
        self._training = self._loader(numbered, shuffle=True)
        if self._resumed:
            self._training.load_state_dict(self._resumed)
        return self._training

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in one order, mixed once: neighbours in a CSV are often of one patient."""
        numbered = NumberedPairs(self.pairs.validation, self.pairs.validation_numbers)
        return self._loader(numbered, shuffle=False)

    def state_dict(self) -> dict[str, int]:
        """Return where in its epoch the training is, for a checkpoint."""
        if self._training is None:
            return {}
        return self._training.state_dict() | {"processes": self._processes}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where a checkpoint was written; Lightning calls it before the loaders are made.

        Raises:
            InputError: If it was written by another number of processes.
        """
        before = state_dict.get("processes", 1)
        if before != self._processes:
            size = self.config.batch_size
            raise InputError(
                "the run to go on with was trained on another number of devices",
                got=f"{before} x {size} pairs a batch then, {self._processes} x {size} now",
                expected="batches of the same size: the contrast and the steps depend on it",
                remedy=f"{before} devices",
            )
        self._resumed = dict(state_dict)

    @property
    def _processes(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def on_before_batch_transfer(self, batch: Collated, dataloader_idx: int) -> Batch:
        """Raise or say here, in the main process, what went wrong in a worker.

        Where several processes train together, each learns here what the others hold.

        Raises:
            InputError: If the batch could not be built, in any process.
        """
        parts = exchange(batch if isinstance(batch.batch, InputError) else _without_images(batch))
        reports: list[Batch] = []
        for other in parts:
            if isinstance(other.batch, InputError):
                raise other.batch
            reports.append(other.batch)
        self._tell([one for other in parts for one in other.left_out])
        assert isinstance(batch.batch, Batch)
        if len(parts) == 1:
            return batch.batch
        joined = join_reports(reports, rank())
        return batch.batch._replace(joined=_pinned(joined) if self._on_cuda else joined)

    @property
    def _on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _tell(self, left_out: list[tuple[int, str]]) -> None:
        part = "training" if self.trainer is not None and self.trainer.training else "validation"
        for number, reason in left_out:
            key = f"{part} {number}"
            if key not in self.left_out:
                self.left_out[key] = reason
                if rank() == 0:
                    tqdm.write(f"left out ({len(self.left_out)} so far): {reason}")

    def _loader(self, numbered: NumberedPairs, shuffle: bool) -> ResumableLoader:
        trainer = self.trainer
        workers = count_workers(
            self.config.num_workers, 1 if trainer is None else trainer.num_devices
        )
        start = None if self.config.worker_start == "auto" else self.config.worker_start
        return ResumableLoader(
            numbered,
            batch_sampler=EvenBatches(
                len(numbered),
                self.config.batch_size,
                self.config.seed,
                shuffle,
                0 if trainer is None else trainer.global_rank,
                self._processes,
            ),
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=start if workers > 0 else None,
            worker_init_fn=_start_worker if workers > 0 else None,
            # One of its own: else whether workers are kept shifts the global one, hence dropout.
            generator=generator(self.config.seed, "loader"),
            pin_memory=self._on_cuda,
        )


def count_workers(requested: int | None, beside: int = 1) -> int:
    """Return how many processes read images: as asked, else one a core but at most 8.

    Args:
        requested: As asked.
        beside: How many processes train on this machine and share its cores.
    """
    if requested is not None:
        return requested
    return max(1, min(8, available_cores() // beside))


def _without_images(batch: Collated) -> Collated:
    """Leave out what is large and no other process needs."""
    assert isinstance(batch.batch, Batch)
    return batch._replace(batch=batch.batch._replace(images=torch.empty(0)))


def _pinned(joined: Joined) -> Joined:
    """Copy to where a GPU reads without the work before it having ended."""
    return joined._replace(
        input_ids=joined.input_ids.pin_memory(),
        attention_mask=joined.attention_mask.pin_memory(),
        report_ids=joined.report_ids.pin_memory(),
    )


def _start_worker(worker: int) -> None:
    """Keep a worker to one core: the readers run side by side, and the trainer needs cores too."""
    leave_signals_alone()
    torch.set_num_threads(1)
