"""Decoded images kept for the length of a run."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retfiner.common.errors import InputError


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros that has its place on the disk.

    Written to through memory, a file without one would end the process as soon as the disk is full.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # absent on macOS and Windows
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


class ImageCache:
    """Images at the backbone's input size as uint8, in a temporary file that all workers share.

    Decoding and resizing B-scans takes most of the time when epochs are many and the model is small
    or the workers few. An image is decoded the first time it is asked for, by whichever process
    asks. The file goes when the cache does, so it is never stale. Rounding to 8 bits changes an
    intensity by at most 1/510.
    """

    def __init__(self, count: int, image_size: int) -> None:
        self.shape = (count, image_size, image_size)
        self.folder = tempfile.TemporaryDirectory(prefix="retfiner-images-")
        self.path = Path(self.folder.name) / "images.u8"
        self._images: Any = None
        self._is_filled: Any = None
        try:
            for name, shape in ((self.path, self.shape), (self._flags, (count,))):
                _reserve(name, math.prod(shape))
        except OSError as error:
            self.folder.cleanup()
            raise InputError(
                "there is no room for --image_cache",
                got=f"{error.strerror} in {self.path.parent.parent}",
                expected=f"{math.prod(self.shape) / 2**20:.0f} MiB",
                remedy="leave --image_cache out, or name a folder on another disk with TMPDIR",
            ) from error

    @property
    def _flags(self) -> Path:
        return self.path.with_name("filled.u8")

    def get(self, index: int, decode: Callable[[], Tensor]) -> Tensor:
        """Return an image, (1, S, S) float32 in [0, 1]; ``decode`` gives it the first time."""
        if self._images is None:  # opened once a process
            self._images = np.memmap(self.path, dtype=np.uint8, mode="r+", shape=self.shape)
            self._is_filled = np.memmap(
                self._flags, dtype=np.uint8, mode="r+", shape=self.shape[:1]
            )
        if not self._is_filled[index]:
            self._images[index] = (decode()[0] * 255).round().to(torch.uint8).numpy()
            self._is_filled[index] = 1  # after the image: another process never reads half of it
        return torch.from_numpy(self._images[index].astype(np.float32))[None] / 255

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "path": self.path, "_images": None, "_is_filled": None}
