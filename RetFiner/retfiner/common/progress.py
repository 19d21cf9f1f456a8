"""How far a stage has come, for whatever may last longer than two seconds.

On a terminal a bar appears after two seconds and goes when the stage ends; in a log file one line
says what is being done, and none what it consists of. What is faster says nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_within = threading.local()
"""How many stages surround this place of a thread."""
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""How launchers number processes: the first of each speaks."""

DELAY = 2.0
"""Seconds of silence that nobody takes for a program that hangs."""
LOADING = "loading libraries"
"""What the import of torch and the like is called; the first of a day takes longest."""


@contextmanager
def progress(
    title: str, total: int | None = None, unit: str = "image", *, shown: bool = True
) -> Iterator[tqdm]:
    """Show how far the block has come.

    Args:
        title: What is being done: "reading scans".
        total: How many there are, where that is known; None for a block that does not count.
        unit: What is counted; ``B`` is shown in kilobytes and more.
        shown: Whether to show it at all; of several processes, only the first ever does.

    Yields:
        tqdm's bar, to be told by ``update(n)`` how many more are done.
    """
    shown = shown and all(os.environ.get(name, "0") == "0" for name in _RANKS)
    terminal = sys.stderr.isatty()
    counts = total is not None or unit == "B"
    bar = tqdm(
        total=total, desc=title, unit=unit, unit_scale=unit == "B", leave=False, delay=DELAY,
        disable=not (shown and terminal), bar_format=None if counts else "{desc} ...",
    )  # fmt: skip

    def speak() -> None:
        if terminal:
            bar.refresh()  # the first of many may itself take long
        else:
            many = unit != "B" and total is not None
            count = f": {total:,} {unit}{'s' if total != 1 else ''}" if many else ""
            print(f"{title}{count} ...", file=sys.stderr, flush=True)

    outer = getattr(_within, "depth", 0)
    _within.depth = outer + 1
    speaks = shown and (terminal or not outer)
    timer = threading.Timer(DELAY, speak)
    timer.daemon = True
    if speaks:
        timer.start()
    try:
        with bar:
            yield bar
    finally:
        _within.depth -= 1  # stages of generators may end in another order
        timer.cancel()
        if speaks:
            timer.join()


def track(
    items: Iterable[T], title: str, total: int | None = None, unit: str = "image", *,
    shown: bool = True,
) -> Iterator[T]:  # fmt: skip
    """Hand items on and show how many have been asked for, as :func:`progress` does."""
    with progress(title, total, unit, shown=shown) as bar:
        for item in items:
            yield item
            bar.update()
