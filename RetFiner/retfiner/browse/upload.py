"""A file that was dropped on the page: it is in memory, and readers want a path."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from retfiner.common.errors import InputError

T = TypeVar("T")

MEMORY = Path("/dev/shm")
"""A folder that is in memory, on Linux."""


def on_file(name: str, content: bytes | memoryview, use: Callable[[Path], T]) -> T:
    """Return what ``use`` makes of a file; the suffix of its name says what kind it is of.

    The file lies where readers can open it, in memory if there is such a folder, for that long.

    Raises:
        InputError: If it cannot be used so; no path is in the message.
    """
    suffix = re.sub(r"[^.0-9A-Za-z]", "", Path(name).suffix)
    place = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="retfiner-", dir=place) as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        try:
            return use(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None
