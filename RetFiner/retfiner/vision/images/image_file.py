"""What readers share: files that know their images, values in [0, 1], and one wording of errors.

Values are scaled by what their type can hold, never by the image's own maximum, so that a dark
B-scan stays dark. Where a file does not say what its user knows, :class:`ReadAs` says it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError, Stopped
from retfiner.vision.images.read_as import AS_SAID, ReadAs
from retfiner.vision.images.remote import url_of

GrayImage = NDArray[np.float32]
"""(H, W) in [0, 1]."""

MAX_IMAGE_PIXELS = 178_956_970
"""Most pixels of one image, twice 89,478,485: where Pillow, too, calls a file a bomb."""

MAX_VOLUME_PIXELS = 2**32
"""Most pixels a file may claim for all its B-scans; wide-field volumes have 1.6 thousand million.

B-scans are read one by one, so this bounds what a damaged header can make us believe, not memory.
"""


_ADDRESS = re.compile(r"<\S+ object at 0x[0-9a-fA-F]+>")
"""An object of Python in a message: nothing to a user, and another one in each run."""


WHICH_ONE = "nothing says which one"


class VolumeError(InputError):
    """A file of several B-scans was given where one image is needed."""


class Note(NamedTuple):
    """What a user should know of an image that is used; ``kind`` is alike for all such images."""

    kind: str
    detail: str = ""


class ImageFile(ABC):
    """An image file, opened as far as needed to know that it holds ``count`` images.

    Whatever a reader raises when it is made or decodes is taken for damage of the file.

    No file handle stays open between two calls, so that an instance can be kept, used from several
    threads, and inherited by a forked process.

    Attributes:
        intact: What an undamaged file is called in errors.
        notes: What was passed over, or may be meant otherwise.
        depth: Bits of the values' type, where they are integers that are scaled by it.
        values_decide: Whether values alone tell if they can be used: floats, for example.
    """

    intact = "an intact file"

    def __init__(self, path: Path, count: int, read_as: ReadAs = AS_SAID) -> None:
        self.path = path
        self.count = count
        self.read_as = read_as
        self.notes: list[Note] = []
        self.depth: int | None = None
        self.values_decide = read_as.bits is not None

    def check(self, index: int) -> None:
        """Find what would fail in :meth:`read`, but damage within compressed values.

        Raises:
            InputError: As :meth:`read`.
        """
        if self.values_decide:
            self.read(index)

    def notes_on(self, image: GrayImage) -> list[Note]:
        """Return the notes, and one on bits that this image, which was read, leaves unused."""
        return [*self.notes, *_unused_bits(image, self.depth if self.read_as.bits is None else 8)]

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
                f"{self.path} holds {self.count} B-scans, and {WHICH_ONE}",
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
        f"The image {url_of(path) or path} cannot be used",
        got=found,
        expected=expected,
        remedy=remedy,
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
        said = _ADDRESS.sub("its data", str(error)) or type(error).__name__
        raise unusable(path, said, expected) from error


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


def _unused_bits(image: GrayImage, depth: int | None) -> list[Note]:
    highest = round(float(image.max()) * 65535)
    bits = next((bits for bits in (8, 10, 12, 14) if highest < 2**bits), None)
    if depth != 16 or not highest or bits is None:
        return []
    found = f"no value above {2**bits - 1:,} in a 16-bit image: {bits} bits? --read_as bits={bits}"
    return [Note(found, f"brightest is {highest:,}")]


def read_exactly(
    file: IO[bytes], size: int, path: Path, part: str, remedy: str | None = None
) -> bytes:
    """Read ``size`` bytes, which hold ``part`` of a file.

    Raises:
        InputError: If the file ends before.
    """
    here = file.tell()
    end = file.seek(0, 2)
    if here + size > end:
        raise unusable(
            path,
            f"{end:,} bytes: the file is cut",
            f"{size:,} bytes at byte {here:,}, {part}",
            remedy,
        )
    file.seek(here)
    return file.read(size)
