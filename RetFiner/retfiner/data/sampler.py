"""Which pairs make a batch, and where an interrupted epoch goes on."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import multiprocessing
from torch.utils.data import BatchSampler, DataLoader
from tqdm import tqdm

from retfiner.common.errors import InputError
from retfiner.common.faults import is_disk_full, little_shared_memory, lost_worker
from retfiner.common.seeds import generator

PATIENCE = 600
"""Seconds without a batch after which a run says what it waits for."""


class Draw(NamedTuple):
    """A pair by its number in the data set, and the epoch for which it is drawn."""

    number: int
    epoch: int


@dataclass(eq=False)
class BalancedBatchSampler(BatchSampler):
    """Batches of almost equal size, so that none is too small for a contrast.

    1,025 pairs at batch size 128 make nine batches of 113 or 114, not eight of 128 and one of 1.
    Several processes share each batch in almost equal parts: all take the same number of steps, and
    every pair is seen once an epoch. ``batch_size`` is the most in a process's part; the next epoch
    leaves out ``skip`` batches at its beginning, once. ``draws`` tells the data set the epoch, for
    pairs of which something else is drawn in each.
    """

    size: int
    batch_size: int
    seed: int
    shuffle: bool
    rank: int = 0
    processes: int = 1
    epoch: int = 0
    skip: int = 0
    draws: bool = False

    def __post_init__(self) -> None:
        # Lightning calls set_epoch on `.sampler`; the order is ours, so we are our own sampler.
        self.sampler = self  # type: ignore[assignment]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.size / (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[int] | list[Draw]]:  # type: ignore[override]
        purpose = self.epoch if self.shuffle else "fixed"
        order = torch.randperm(self.size, generator=generator(self.seed, "order", purpose))
        skip, self.skip = self.skip, 0
        for chunk in order.tensor_split(len(self))[skip:]:
            own = chunk.tensor_split(self.processes)[self.rank].tolist()
            yield [Draw(index, self.epoch) for index in own] if self.draws else own


class ResumableDataLoader(DataLoader[Any]):
    """A loader that goes on in the middle of an epoch where a checkpoint was written.

    Without its state, a resumed epoch would begin with the batches that it has already seen and
    leave out the last ones.
    """

    batch_sampler: BalancedBatchSampler
    batches_given = 0

    def start_workers(self) -> None:
        """Fork the processes now, before there are threads, and wait until they answer.

        A fork copies locks that a thread holds, but not the thread: such a worker waits for ever.
        PyTorch forks where an iteration begins, which for validation is when threads compute
        gradients and pin batches already; so iterations over nothing begin here: the first one
        forks, the second one waits for the answers.

        Raises:
            InputError: If they do not answer.
        """
        context = self.multiprocessing_context or multiprocessing
        if self.num_workers > 0 and context.get_start_method() == "fork":
            skip = self.batch_sampler.skip
            for _ in range(2):
                self.batch_sampler.skip = len(self.batch_sampler)
                self._begin()
            self.batch_sampler.skip = skip

    def _begin(self) -> Iterator[Any]:
        if self._iterator is None:  # processes start now, and none is waited for
            try:
                return super().__iter__()
            except OSError as error:
                if is_disk_full(error):  # locks between processes are kept there
                    raise little_shared_memory(str(error)) from error
                raise
        ended: list[str] = []
        try:
            with _after(PATIENCE, lambda: ended.extend(_kill_workers())):
                return super().__iter__()
        except RuntimeError as error:
            if not ended:
                raise
            raise InputError(
                "the processes that read images do not answer",
                got=f"nothing for {PATIENCE} seconds",
                remedy="--worker_start spawn, or --num_workers 0",
            ) from error

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of an epoch, of the first one after loading a state only the rest.

        Raises:
            InputError: If a process that reads images ends, or does not answer.
        """
        self.batches_given = self.batch_sampler.skip
        batches = self._begin()
        while True:
            try:
                batch = self.take(batches)
            except StopIteration:
                return
            self.batches_given += 1
            yield batch

    def take(self, batches: Iterator[Any]) -> Any:
        """Give the next batch, and say so where it takes long.

        Raises:
            InputError: If the process that reads it ends while it hands it over.
        """
        if self.num_workers == 0:
            return next(batches)
        try:
            # Not by `timeout`: with one, PyTorch would look as rarely whether its processes live.
            with _after(PATIENCE, _say_what_is_awaited):
                return next(batches)
        except (EOFError, ConnectionError, FileNotFoundError) as error:
            if str(error).startswith("Caught "):  # in a user's data set
                raise
            raise lost_worker("it ended while it handed over a batch") from error

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were given."""
        return {"batches_given": self.batches_given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out the batches that were given before, unless they were the whole epoch."""
        self.batch_sampler.skip = state["batches_given"] % len(self.batch_sampler)


@contextmanager
def _after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something, in another thread, if the block takes so long."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a fork that follows finds no thread


def _kill_workers() -> list[str]:
    """End this process's own ones, for which it else waits without end; return their names."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    return [worker.name for worker in workers]


def _say_what_is_awaited() -> None:
    tqdm.write(
        f"note: no batch of images for {PATIENCE} seconds; if the storage is not that slow, stop, "
        "and go on with --resume and --worker_start spawn"
    )
