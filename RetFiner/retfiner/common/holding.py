"""One process at a time works in a folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning_utilities.core.rank_zero import rank_zero_only

from retfiner.common.errors import InputError


@contextmanager
def hold(folder: Path, remove_if_empty: bool = False) -> Iterator[None]:
    """Keep other processes from working on the same run, while the context lasts.

    The operating system lets go of the lock when the process ends, however it ends.

    Args:
        folder: The run's folder.
        remove_if_empty: Whether a folder goes in which nothing was written.

    Raises:
        InputError: If another process is at it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:  # the first process of a run holds it for all
        yield
        return
    path, holder = folder / "run.lock", folder / "run.holder"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=2)  # a process that was just killed may take a moment to be gone
    except Timeout as error:
        raise InputError(
            f"another process is at the run in {folder}",
            got=holder.read_text(encoding="utf-8") if holder.is_file() else "a lock that is held",
            expected="one process a run",
            remedy="wait for it, or start a run of its own without --resume",
        ) from error
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        lock.release()
        if remove_if_empty and not any(folder.iterdir()):
            folder.rmdir()
