"""How far a stage has come, for whatever may last longer than two seconds.

On a terminal a bar appears after two seconds and goes when the stage ends; in a log file one line
says what is being done. What is faster says nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

DELAY = 2.0
"""Seconds of silence that nobody takes for a program that hangs."""


@contextmanager
def progress(
    title: str, total: int | None = None, unit: str = "image", *, shown: bool = True
) -> Iterator[Callable[[int], object]]:
    """Show how far the block has come.

    Args:
        title: What is being done: "reading scans".
        total: How many there are, where that is known; None for a block that does not count.
        unit: What is counted; ``B`` is shown in kilobytes and more.
        shown: Whether this process speaks: of several, one does.

    Yields:
        A function that is told how many more are done.
    """
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

    timer = threading.Timer(DELAY, speak)
    timer.daemon = True
    if shown:
        timer.start()
    try:
        with bar:
            yield bar.update
    finally:
        timer.cancel()
        if shown:
            timer.join()


def track(
    items: Iterable[T], title: str, total: int | None = None, unit: str = "image", *,
    shown: bool = True,
) -> Iterator[T]:  # fmt: skip
    """Hand items on and show how many have been asked for, as :func:`progress` does."""
    with progress(title, total, unit, shown=shown) as advance:
        for item in items:
            yield item
            advance(1)
