"""Arrays of NumPy: ``.npy`` files and ``.npz`` archives, one image or a stack of B-scans.

Nothing is ever unpickled. What an array means follows from its shape:

- (H, W), (H, W, 1), (H, W, 3), (H, W, 4): one image;
- (N, H, W) of any other last axis, (N, H, W, 1), (N, H, W, 3), (N, H, W, 4): N B-scans.

The axis that counts B-scans must come first: (H, W, N) cannot be told from (N, H, W).
"""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from retfiner.common.errors import shorten
from retfiner.vision.images.image_file import (
    GrayImage,
    ImageFile,
    from_array,
    require_size,
    translated,
    unusable,
)

INTACT = "an intact array of NumPy"
SHAPES = "(H, W), (H, W, 1 or 3 or 4), (N, H, W) or (N, H, W, 1 or 3 or 4)"

MAX_MEMBER_BYTES = 2**32
"""Most bytes of an array in an archive; it is unpacked into memory as a whole."""

MAX_RATIO, RATIO_FROM = 100, 2**28
"""An archive's array of more bytes than the latter that was packed tighter than the former is taken
for a bomb: B-scans have noise, and noise does not pack."""

MAX_HEADER_BYTES = 2**16
"""Most bytes of the text before an array's values. It says its own length, up to 4 GiB."""

_HEADERS: Mapping[tuple[int, int], Callable[..., Any]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


class Layout(NamedTuple):
    """How the axes of an array are to be read."""

    images: int
    height: int
    width: int
    is_stack: bool


def layout_of(shape: tuple[int, ...]) -> Layout | None:
    """Say what an array's shape means, or None where it can be no image."""
    if not all(shape):
        return None
    has_channels = len(shape) > 2 and shape[-1] in (1, 3, 4)
    sides = shape[:-1] if has_channels else shape
    if len(sides) == 2:
        return Layout(1, *sides, is_stack=False)
    return Layout(*sides, is_stack=True) if len(sides) == 3 else None


def read_array_header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Read the header of an array, however long it says it is, in bounded memory.

    Returns:
        Shape and type of the array, and the number of bytes before its values.

    Raises:
        InputError: If it is of another version of the format. What numpy raises goes through.
    """
    start = io.BytesIO(file.read(MAX_HEADER_BYTES))
    version = npy_format.read_magic(start)
    if version not in _HEADERS:
        raise unusable(path, f"version {version} of the .npy format", "version 1.0 or 2.0")
    try:
        shape, _, dtype = _HEADERS[version](start)
    except (MemoryError, RecursionError) as error:  # both of Python's parser
        raise unusable(path, "a header that cannot be parsed", INTACT) from error
    return shape, dtype, start.tell()


def require_memory(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], packed: int) -> None:
    """Refuse an array of an archive, ``packed`` bytes there, that would not fit into memory.

    Raises:
        InputError: If it is too large, or a decompression bomb.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_MEMBER_BYTES:
        raise unusable(path, f"{size:,} bytes unpacked", f"at most {MAX_MEMBER_BYTES:,}")
    if size > RATIO_FROM and size > MAX_RATIO * packed:
        raise unusable(
            path, f"{size:,} bytes unpacked of {packed:,}", f"at most {MAX_RATIO} times as many"
        )


def _require_layout(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> Layout:
    if dtype.hasobject:
        raise unusable(path, "Python objects, which would have to be unpickled", "numbers")
    layout = layout_of(shape)
    if layout is None:
        raise unusable(path, f"shape {shape}", SHAPES)
    require_size(path, layout.images, layout.height, layout.width)
    return layout


class ArrayFile(ImageFile):
    """An ``.npy`` file; only the B-scan that is wanted is read from the disk.

    Raises:
        InputError: If it holds no image.
    """

    intact = INTACT

    def __init__(self, path: Path) -> None:
        with translated(path, INTACT), path.open("rb") as file:
            shape, dtype, begin = read_array_header(file, path)
            size = file.seek(0, 2)
        self.layout = _require_layout(shape, dtype, path)
        needed = begin + math.prod(shape) * dtype.itemsize
        if size < needed:
            raise unusable(path, f"{size:,} bytes: the file is cut", f"{needed:,} bytes")
        super().__init__(path, self.layout.images)

    def _decode(self, index: int) -> GrayImage:
        values = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return from_array(values[index] if self.layout.is_stack else values, self.path)


class ArchiveFile(ImageFile):
    """An ``.npz`` archive, whose array is unpacked into memory when it is first read.

    Archives often hold labels, ages or thickness profiles beside the scan: scalars and vectors are
    passed over. If more than one array could be an image, its name must be given.

    Args:
        path: The file.
        member: Name of the array; None for the only one that can be an image.

    Raises:
        InputError: If there is no such array, or several and no name.
    """

    intact = INTACT

    def __init__(self, path: Path, member: str | None = None) -> None:
        headers = read_archive_headers(path)
        candidates = [name for name, (shape, *_) in headers.items() if layout_of(shape) is not None]
        if member is None and len(candidates) != 1:
            raise unusable(
                path,
                f"{len(candidates)} arrays that could be images: {shorten(candidates) or 'none'}",
                "one array, or its name",
                f"write {path.name}#{candidates[0]}, for example" if candidates else None,
            )
        self.member = candidates[0] if member is None else member
        if self.member not in headers:
            raise unusable(path, f"no array {member}", f"one of {shorten(list(headers))}")
        array = headers[self.member]
        self.layout = _require_layout(array.shape, array.dtype, path)
        require_memory(path, *array)
        self._values: NDArray[Any] | None = None
        super().__init__(path, self.layout.images)

    def _decode(self, index: int) -> GrayImage:
        if self._values is None:
            with np.load(self.path, allow_pickle=False) as archive:
                self._values = archive[self.member]
        values = self._values
        return from_array(values[index] if self.layout.is_stack else values, self.path)


class PackedArray(NamedTuple):
    """An array of an archive, not yet unpacked: shape, type, and the bytes it takes there."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packed: int


def read_archive_headers(path: Path) -> dict[str, PackedArray]:
    """Read name, shape and type of each array without unpacking any.

    Raises:
        InputError: If it is damaged.
    """
    headers = {}
    with translated(path, INTACT), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info.filename) as file:
                    shape, dtype, _ = read_array_header(file, path)
                name = info.filename.removesuffix(".npy")
                headers[name] = PackedArray(shape, dtype, info.compress_size)
    return headers
