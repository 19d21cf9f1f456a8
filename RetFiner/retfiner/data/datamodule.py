"""From settings to the loaders of training and validation."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from retfiner.common.errors import InputError
from retfiner.common.processes import SIGNALS, enough_workers, handing_over, start_reader
from retfiner.common.seeds import generator
from retfiner.data.batch import Collate, Collated
from retfiner.data.custom import UserDataset, accepts, takes
from retfiner.data.exams import Slices
from retfiner.data.manifest import Manifest, require_contrast, split_groups
from retfiner.data.pairs import ImageCaptionDataset, NumberedPairs
from retfiner.data.sampler import BalancedBatchSampler, ResumableDataLoader
from retfiner.model import Batch
from retfiner.vision.images import ImageAddress
from retfiner.vision.preprocessing import EvaluationTransform

Transforms = tuple[EvaluationTransform, EvaluationTransform]
"""What turns B-scans into the backbone's input, in training and in validation."""


@dataclass(frozen=True)
class Pairs:
    """The two parts of the data, with the tables they came from, if they did.

    Numbers are what pairs are called in messages: rows of the CSV, or items of the user's data set;
    None are their positions.
    """

    train: Dataset[Any]
    validation: Dataset[Any]
    manifests: tuple[Manifest, Manifest] | None = None
    train_numbers: list[int] | None = None
    validation_numbers: list[int] | None = None

    @property
    def numbered(self) -> tuple[NumberedPairs, NumberedPairs]:
        """Both parts, each pair with its number and, of a table, the address of its image."""
        tables = self.manifests
        train, validation = (None, None) if tables is None else map(_addresses, tables)
        return (
            NumberedPairs(self.train, self.train_numbers, train),
            NumberedPairs(self.validation, self.validation_numbers, validation),
        )

    @property
    def train_size(self) -> int:
        """Number of pairs to train on."""
        return len(self.train)  # type: ignore[arg-type]

    @property
    def validation_size(self) -> int:
        """Number of pairs to validate on."""
        return len(self.validation)  # type: ignore[arg-type]


def _addresses(table: Manifest) -> list[ImageAddress]:
    """Say where images lie, by which pairs of the same one are known; of exams, a name of each."""
    if table.exams is None:
        return table.images
    return [ImageAddress(Path(exam.identity)) for exam in table.exams]


def pairs_of_tables(
    tables: tuple[Manifest, Manifest],
    transforms: Transforms,
    image_cache: bool = False,
    slices: Slices | None = None,
) -> Pairs:
    """Make data sets of the checked tables to train on and to validate on.

    Raises:
        InputError: If a part has fewer than two pairs.
    """
    train, validation = (
        ImageCaptionDataset(table, transform, image_cache, slices)
        for table, transform in zip(tables, transforms, strict=True)
    )
    return _checked(Pairs(train, validation, tables, tables[0].rows, tables[1].rows))


def pairs_of_dataset(
    reference: str,
    transforms: Transforms,
    *,
    image_root: Path | None = None,
    patients_known: bool = True,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> Pairs:
    """Build and split a data set of the user's own, named as ``path/to/file.py:Class``.

    Unless ``patients_known`` is false, a class that says nothing of patients is an error;
    ``val_fraction`` is the share of the patients split off.

    Raises:
        InputError: If the data cannot be used, or a part has fewer than two pairs.
    """
    if transforms[0] != transforms[1] and not accepts(reference, "transform"):
        raise InputError(
            f"--train_interpolation has no effect on {reference}, which takes no `transform`",
            got=f"--train_interpolation {transforms[0].interpolation}, which --recipe published"
            " asks for where it is not given",
            expected=f"{transforms[1].interpolation}, as in validation",
            remedy=f"--train_interpolation {transforms[1].interpolation}, or resize with the"
            " argument `transform`",
        )
    offered = [{"transform": transform, "image_root": image_root} for transform in transforms]
    if takes(reference, "split"):
        train, val = (
            UserDataset(reference, split=split, **arguments)
            for split, arguments in zip(("train", "validation"), offered, strict=True)
        )
        return _checked(Pairs(train, val))
    whole = UserDataset(reference, **offered[1])
    patients = getattr(whole.pairs, "patients", None)
    if patients is not None and len(patients) != len(whole):
        raise InputError(
            f"`patients` of {reference} does not fit its items",
            got=f"{len(patients)} patients for {len(whole)} items",
            expected="one name an item",
        )
    if patients is None and patients_known:
        raise InputError(
            f"{reference} cannot be split by patient",
            got="a class without an argument `split` and without an attribute `patients`",
            expected="`split` ('train' or 'validation'), or `patients`, one name an item",
            remedy="--patient_column none splits item by item, patients on both sides included",
        )
    groups = [str(p) for p in (range(len(whole)) if patients is None else patients)]
    chosen, held_out = split_groups(groups, val_fraction, seed, reference)
    as_trained = whole if offered[0] == offered[1] else UserDataset(reference, **offered[0])
    parts = Subset(as_trained, chosen), Subset(whole, held_out)
    return _checked(Pairs(*parts, None, chosen, held_out))


def _checked(pairs: Pairs) -> Pairs:
    require_contrast(pairs.train_size, pairs.validation_size)
    return pairs


PAIRS_PER_SECOND = {True: 1_200, False: 100}
"""Pairs that the fastest device trains on, GPU or not: ViT-B on an H200 (``docs/hardware.md``)."""
SAMPLED = 8
"""Pairs that are read to see how fast it goes."""


class PairsDataModule(pl.LightningDataModule):
    """Loaders of image-report batches.

    Args:
        pairs: The two parts of the data.
        collate: How a batch is put together.
        join: Makes the step's batch of what a worker handed over: raises what went wrong there, and
            joins what several processes hold. Takes whether it is of ``training`` or
            ``validation``, and whether a GPU reads it.
        batch_size: Most pairs in a batch of one process.
        seed: What the order of the pairs depends on.
        num_workers: Processes that read images; by default as many as keep the device busy, by how
            fast one of them reads these images.
        worker_start: How they start: fork, spawn, forkserver; by default as the system has it.
        draws: Whether slices or sentences of a training pair are drawn anew in each epoch.
    """

    def __init__(
        self,
        pairs: Pairs,
        collate: Collate,
        join: Callable[[Collated, str, bool], Batch],
        *,
        batch_size: int,
        seed: int = 0,
        num_workers: int | None = None,
        worker_start: str | None = None,
        draws: bool = False,
    ) -> None:
        super().__init__()
        self.pairs = pairs
        self.collate = collate
        self.join = join
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.worker_start = worker_start
        self.draws = draws
        self._training: ResumableDataLoader | None = None
        self._resumed: dict[str, int] = {}
        self._speed: float | None = None

    def steps_per_epoch(self, processes: int) -> int:
        """Count the batches of an epoch, each shared by so many processes.

        Raises:
            InputError: If there are fewer pairs than processes.
        """
        train, validation = self.pairs.train_size, self.pairs.validation_size
        if min(train, validation) < processes:
            raise InputError(
                "there are fewer pairs than devices",
                got=f"{train} to train on and {validation} to validate for {processes} devices",
                expected="at least one for each",
            )
        return math.ceil(train / (self.batch_size * processes))

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches in another order each epoch."""
        self._training = self._loader(self.pairs.numbered[0], shuffle=True)
        if self._resumed:
            self._training.load_state_dict(self._resumed)
        self._training.start_workers()
        return self._training

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches in one order, mixed once: neighbours in a CSV are often of one patient."""
        loader = self._loader(self.pairs.numbered[1], shuffle=False)
        loader.start_workers()
        return loader

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
            size = self.batch_size
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

        Raises:
            InputError: If the batch could not be built, in any process.
        """
        part = "training" if self.trainer is not None and self.trainer.training else "validation"
        return self.join(batch, part, self._on_cuda)

    @property
    def _on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _count_workers(self, numbered: NumberedPairs) -> int:
        """Read a few pairs, and count the processes that read as fast as the device may train."""
        if self._speed is None:
            chosen = range(0, len(numbered), max(1, len(numbered) // SAMPLED))[:SAMPLED]
            begin = time.perf_counter()
            with torch.random.fork_rng(devices=[]):  # a user may draw from it
                for index in chosen:
                    numbered[index]
            self._speed = len(chosen) / (time.perf_counter() - begin)
        beside = 1 if self.trainer is None else self.trainer.num_devices
        return enough_workers(PAIRS_PER_SECOND[self._on_cuda], self._speed, beside)

    def _loader(self, numbered: NumberedPairs, shuffle: bool) -> ResumableDataLoader:
        trainer = self.trainer
        # Where others hold pairs of the same batch, one of our own is enough to contrast.
        self.collate.least = 2 if self._processes == 1 else 1
        workers = self._count_workers(numbered) if self.num_workers is None else self.num_workers
        return ResumableDataLoader(
            numbered,
            batch_sampler=BalancedBatchSampler(
                len(numbered),
                self.batch_size,
                self.seed,
                shuffle,
                0 if trainer is None else trainer.global_rank,
                self._processes,
                draws=self.draws and shuffle,
            ),
            collate_fn=handing_over(self.collate),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=self.worker_start if workers > 0 else None,
            worker_init_fn=_start_worker if workers > 0 else None,
            # One of its own: else whether workers are kept shifts the global one, hence dropout.
            generator=generator(self.seed, "loader"),
            pin_memory=self._on_cuda,
        )


def _start_worker(worker: int) -> None:
    """Let a worker live until the run has ended its step.

    What tells a run to stop reaches its workers as well; the run ends them itself.
    """
    for number in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # absent on macOS and Windows, where no cluster sends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_end, daemon=True).start()
    start_reader(worker)


def _await_end() -> None:
    """Leave at a SIGTERM of the main process, and of it alone.

    PyTorch and, at exit, Python send it to workers that did not leave by themselves, and wait for
    them: a worker that ignored it would keep a run that has failed from ever ending.
    """
    main = parent_process()
    assert main is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)
