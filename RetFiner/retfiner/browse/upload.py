"""A file that was dropped on the page: it is in memory, and readers want a path."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retfiner.browse.collection import Array
from retfiner.common.errors import InputError
from retfiner.vision import ImageAddress, count_images, read_image

MEMORY = Path("/dev/shm")
"""A folder that is in memory, on Linux."""


def count_bscans(name: str, content: bytes | memoryview) -> int:
    """Count the images in a file; the suffix of its name says what kind it is of.

    Raises:
        InputError: If it is no image of a known kind; no path is in the message.
    """
    with _as_file(name, content) as path:
        return count_images(path)


def read_bscan(name: str, content: bytes | memoryview, index: int | None) -> Array:
    """Read one image of a file, of a volume that at ``index``: (H, W) in [0, 1].

    Raises:
        InputError: If it cannot be read; no path is in the message.
    """
    with _as_file(name, content) as path:
        return read_image(ImageAddress(path, index))


def read_volume(name: str, content: bytes | memoryview, count: int) -> list[Array]:
    """Read all ``count`` images of a file, each (H, W) in [0, 1].

    Raises:
        InputError: If one cannot be read; no path is in the message.
    """
    with _as_file(name, content) as path:
        return [read_image(ImageAddress(path, index)) for index in range(count)]


@contextmanager
def _as_file(name: str, content: bytes | memoryview) -> Iterator[Path]:
    """Put a file where readers can open it, in memory if there is such a folder, for a moment."""
    suffix = re.sub(r"[^.0-9A-Za-z]", "", Path(name).suffix)
    place = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="retfiner-", dir=place) as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None
