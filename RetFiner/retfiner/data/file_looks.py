"""Files that are looked at before training, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from retfiner.common.progress import progress
from retfiner.vision.images import ImageAddress

CHUNK = 256
Look = TypeVar("Look")


def look_at_each(
    images: Iterable[ImageAddress], look: Callable[[ImageAddress], Look], title: str
) -> dict[ImageAddress, Look]:
    """Look at the file of each image; one that is named often is looked at once."""
    distinct = list(dict.fromkeys(images))
    # A task a file would cost more than the file: a thread takes a few hundred at a time.
    chunks = [distinct[i : i + CHUNK] for i in range(0, len(distinct), CHUNK)]
    looks: dict[ImageAddress, Look] = {}
    with ThreadPoolExecutor(8) as pool, progress(title, len(distinct)) as bar:
        checked = pool.map(lambda chunk: [look(image) for image in chunk], chunks)
        for chunk, found in zip(chunks, checked, strict=True):
            looks.update(zip(chunk, found, strict=True))
            bar.update(len(chunk))
    return looks
