"""What every reader gives: a file that knows how many images it holds and reads one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.vision.images.scaling import GrayImage


class VolumeError(InputError):
    """A file of several B-scans was given where one image is needed."""


class ImageFile(ABC):
    """An image file, opened as far as needed to know how many images it holds.

    No file handle stays open between two calls, so that an instance can be kept, used from several
    threads, and inherited by a forked process.

    Args:
        path: The file.
        count: Number of images in it.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count

    @abstractmethod
    def read(self, index: int) -> GrayImage:
        """Read one image.

        Args:
            index: Which, from 0 to ``count - 1``; :meth:`place` checks it.

        Returns:
            (H, W) float32 in [0, 1].

        Raises:
            InputError: If it cannot be decoded.
        """

    def __iter__(self) -> Iterator[GrayImage]:
        """Read all images in turn, one in memory at a time."""
        for index in range(self.count):
            yield self.read(index)

    def place(self, index: int | None) -> int:
        """Check which image is wanted, None for the only one; return its index.

        Raises:
            VolumeError: If none is named and there are several.
            InputError: If there is none at ``index``.
        """
        if index is None and self.count > 1:
            raise VolumeError(
                f"{self.path} holds {self.count} B-scans, and nothing says which one",
                got="a path alone",
                expected=f"an index from 0 to {self.count - 1}",
                remedy=f"write {self.path.name}#{self.count // 2}, for example, or give a column "
                "`slice` beside the column of paths",
            )
        if index is not None and not 0 <= index < self.count:
            raise InputError(
                f"{self.path} has no B-scan {index}",
                got=f"index {index}, and {self.count} image{'s' if self.count > 1 else ''} in it",
                expected=f"an index from 0 to {self.count - 1}" if self.count > 1 else "no index",
            )
        return index or 0
