"""What readers share: files that know their images, values in [0, 1], and one wording of errors.

Values are scaled by what their type can hold, never by the image's own maximum, so that a dark
B-scan stays dark.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError, Stopped

GrayImage = NDArray[np.float32]
"""(H, W) in [0, 1]."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601, as Pillow has them."""

MAX_IMAGE_PIXELS = 178_956_970
"""Most pixels of one image, twice 89,478,485: where Pillow, too, calls a file a bomb."""

MAX_VOLUME_PIXELS = 2**32
"""Most pixels a file may claim for all its B-scans; wide-field volumes have 1.6 thousand million.

B-scans are read one by one, so this bounds what a damaged header can make us believe, not memory.
"""


class VolumeError(InputError):
    """A file of several B-scans was given where one image is needed."""


class ImageFile(ABC):
    """An image file, opened as far as needed to know that it holds ``count`` images.

    Whatever a reader raises when it is made or decodes is taken for damage of the file.

    No file handle stays open between two calls, so that an instance can be kept, used from several
    threads, and inherited by a forked process.

    Attributes:
        intact: What an undamaged file is called in errors.
    """

    intact = "an intact file"

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count

    def read(self, index: int) -> GrayImage:
        """Read one image, from 0 to ``count - 1``, as (H, W) in [0, 1]; :meth:`place` checks it.

        Raises:
            InputError: If it cannot be decoded.
        """
        with translated(self.path, self.intact):
            return self._decode(index)

    @abstractmethod
    def _decode(self, index: int) -> GrayImage: ...

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


def unusable(path: Path, found: object, expected: object, remedy: str | None = None) -> InputError:
    """Make the error for an image file that cannot be used."""
    return InputError(
        f"The image {path} cannot be used", got=found, expected=expected, remedy=remedy
    )


@contextmanager
def translated(path: Path, expected: str = ImageFile.intact) -> Iterator[None]:
    """Turn what a decoder raises for a damaged file, of whatever kind, into one error of ours.

    Raises:
        InputError: That names the file, and what was expected of it.
    """
    try:
        yield
    except (InputError, Stopped):
        raise
    except MemoryError as error:
        raise unusable(
            path,
            "not enough memory to read it",
            "a file that fits into memory",
            "fewer processes with --num_workers, or a smaller file",
        ) from error
    except Exception as error:
        raise unusable(path, str(error) or type(error).__name__, expected) from error


def require_size(path: Path, count: int, height: int, width: int) -> None:
    """Refuse sizes that no OCT scan has, before memory is taken for them.

    Raises:
        InputError: If a size is not positive or the whole is too large.
    """
    if min(count, height, width) < 1:
        raise unusable(path, f"{count} images of {height} x {width} pixels", "at least one pixel")
    if height * width > MAX_IMAGE_PIXELS or count * height * width > MAX_VOLUME_PIXELS:
        raise unusable(
            path,
            f"{count} images of {height} x {width} pixels by its header",
            f"at most {MAX_IMAGE_PIXELS:,} pixels an image and {MAX_VOLUME_PIXELS:,} a file",
        )


def from_array(values: NDArray[Any], path: Path) -> GrayImage:
    """Scale an array by its type; colour becomes luma, an alpha channel is dropped.

    Args:
        values: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): 8- or 16-bit unsigned integers of either
            byte order, booleans, or floats in [0, 1].
        path: Where it comes from, for the message.

    Raises:
        InputError: If the type is another one, or a float is not in [0, 1].
    """
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        scaled = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    elif values.dtype == np.bool_:
        scaled = values.astype(np.float32)
    elif np.issubdtype(values.dtype, np.floating):
        scaled = unit_floats(values, path)
    else:
        raise unusable(path, f"dtype {values.dtype}", "uint8, uint16, bool or floats in [0, 1]")
    return to_luma(scaled)


def unit_floats(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Take floats as they are.

    Raises:
        InputError: If one is not in [0, 1].
    """
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        found = f"floats from {values.min()} to {values.max()}"
        raise unusable(path, found, "floats in [0, 1], or 8- or 16-bit integers")
    return values.astype(np.float32)


def to_luma(scaled: NDArray[np.float32]) -> GrayImage:
    """Turn (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) into (H, W)."""
    if scaled.ndim == 2:
        return scaled
    if scaled.shape[-1] == 1:
        return scaled[..., 0]
    gray: GrayImage = scaled[..., :3] @ np.array(LUMA, dtype=np.float32)
    return gray
