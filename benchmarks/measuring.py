"""Seconds by phase and the most memory held."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Adds up seconds by phase.

    On a GPU a phase's seconds are those between two events in its queue, read after one wait at the
    end: the CPU runs ahead as it does in training, and what it is too slow to queue counts where
    the GPU waits for it.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_cuda = device.type == "cuda"
        self.phases: list[tuple[str, Any, Any]] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._now()
        yield
        self.phases.append((name, begin, self._now()))

    def _now(self) -> Any:
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> dict[str, float]:
        """Wait for the device and say what each phase took."""
        if self.is_cuda:
            torch.cuda.synchronize()
        found: dict[str, float] = defaultdict(float)
        for name, begin, end in self.phases:
            found[name] += begin.elapsed_time(end) / 1e3 if self.is_cuda else end - begin
        return dict(found)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Note the most memory held in a step: the device's, or this process's on a CPU."""
    found = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield found
        found[0] = torch.cuda.max_memory_allocated()
        return
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            found[0] = max(found[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    stop.set()
    thread.join()
    found[0] = max(found[0], resident())


def resident() -> int:
    """Bytes this process holds in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def give_memory_back() -> None:
    """Let the next way begin with what it needs, not with what the other left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
