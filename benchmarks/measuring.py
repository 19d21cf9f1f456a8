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

import torch


class Clock:
    """Adds up seconds by phase; on a GPU each phase waits for its work.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[name] += self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


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
