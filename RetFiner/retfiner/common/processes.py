"""What every pool of processes needs to know."""

from __future__ import annotations

import os
import signal


def available_cores() -> int:
    """Count the cores this process may use, which on a shared machine are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def leave_interrupts_alone() -> None:
    """Start a worker process: Ctrl-C reaches all of them, and the first one alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
