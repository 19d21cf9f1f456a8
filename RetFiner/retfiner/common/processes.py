"""What every pool of processes needs to know."""

from __future__ import annotations

import math
import os
import signal

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
