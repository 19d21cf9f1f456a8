"""What every pool of processes needs to know."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.queues import Queue
from typing import Any, Literal, TypeVar

from retfiner.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)
"""What clusters and terminals send: preemption, Ctrl-C, and SLURM's word that time is nearly up."""


def available_cores() -> int:
    """Count the cores this process may use, which on a shared machine are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_workers(requested: int | None, beside: int = 1) -> int:
    """Return how many processes read images: as asked, else one a core but at most 8.

    ``beside`` processes work on this machine and share its cores.
    """
    if requested is not None:
        return requested
    return max(1, min(8, available_cores() // beside))


def enough_workers(wanted: float, speed: float, beside: int = 1) -> int:
    """Return how many processes read ``wanted`` images a second, of which one reads ``speed``.

    There are no more than cores, which ``beside`` processes on this machine share.
    """
    return max(1, min(available_cores() // beside, math.ceil(wanted / speed)))


def leave_interrupts_alone() -> None:
    """Start a worker process: Ctrl-C reaches all of them, and the first one alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    remedy: str,
    start: Literal["spawn", "fork"] = "spawn",
    at_once: int = 1,
) -> Iterator[Result]:
    """Do work on items in several processes, and give what comes of it in their order.

    Processes are spawned unless said: a forked child of a process that runs threads (torch) may
    hang. They take ``at_once`` items at a time, and none works on when the loop is left early.

    Raises:
        InputError: If one is ended from outside, with the ``remedy``.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    method = start if start in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(
        max(1, min(workers, len(items))),
        multiprocessing.get_context(method),
        initializer=leave_interrupts_alone,
    )
    try:
        yield from pool.map(work, items, chunksize=at_once)
    except BrokenProcessPool as error:
        raise InputError(
            "a process that works beside this one was ended from outside",
            got=error,
            expected="that it works to the end; memory is the usual reason",
            remedy=remedy,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def handing_over(collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let a process that reads images lay its batches where the main process finds them.

    PyTorch does so in a thread of its own, whose error nobody would hear of: where /dev/shm is
    small, as in a container, the batch would be awaited without end.

    Args:
        collate: Makes a batch, of tensors in tuples and lists.
    """
    return partial(_collate_and_share, collate)


def _collate_and_share(collate: Callable[[Any], Any], items: Any) -> Any:
    from torch.utils.data import get_worker_info

    batch = collate(items)
    if get_worker_info() is not None:
        _share(batch)
    return batch


def _share(value: Any) -> None:
    from torch import Tensor

    if isinstance(value, Tensor):
        value.share_memory_()
    elif isinstance(value, list | tuple):
        for part in value:
            _share(part)


def start_reader(worker: int) -> None:
    """Start a process that reads images: it ends where a batch of it cannot be handed over."""
    import torch

    # Python's hook for it, which by default prints the error and forgets the batch.
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
    torch.set_num_threads(1)  # readers run side by side, and the model needs cores too


def _end(error: Exception, item: object) -> None:
    told = (
        f"\na process that reads images cannot hand over a batch: {type(error).__name__}: {error}\n"
    )
    os.write(2, told.encode(errors="replace"))
    os._exit(1)
