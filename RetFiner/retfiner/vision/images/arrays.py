"""Arrays of NumPy: ``.npy`` files and ``.npz`` archives, one image or a stack of B-scans.

Nothing is ever unpickled. What an array means follows from its shape:

- (H, W), (H, W, 1), (H, W, 3), (H, W, 4): one image;
- (N, H, W) of any other last axis, (N, H, W, 1), (N, H, W, 3), (N, H, W, 4): N B-scans.

Of more than three axes those of length 1 say nothing, as in PyTorch's (1, 1, H, W). The axis that
counts B-scans comes first: (H, W, N) cannot be told from (N, H, W). Where the shape makes one
wonder there is a note, and ``#axis=last`` reads the other way. Colour comes last.
"""

import io
import math
import zipfile
from abc import abstractmethod
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
    Note,
    VolumeError,
    require_size,
    translated,
    unusable,
)
from retfiner.vision.images.read_as import AS_SAID, ReadAs
from retfiner.vision.images.scaling import from_array, require_dtype

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
    axis: int = 0

    def image(self, values: NDArray[Any], index: int) -> NDArray[Any]:
        """Take one image out of an array of this layout."""
        return np.take(values, index, self.axis) if self.is_stack else values


def layout_of(shape: tuple[int, ...], axis: str | None = None) -> Layout | None:
    """Say what an array's shape means, or None where it can be no image.

    Args:
        shape: The shape.
        axis: Which axis of three counts B-scans, ``first`` or ``last``, where that is known.
    """
    if not all(shape):
        return None
    if axis is not None and len(shape) == 3:
        count, height, width = shape if axis == "first" else (shape[-1], *shape[:-1])
        return Layout(count, height, width, is_stack=True, axis=0 if axis == "first" else 2)
    has_channels = len(shape) > 2 and shape[-1] in (1, 3, 4)
    sides = shape[:-1] if has_channels else shape
    if len(sides) == 2:
        return Layout(1, *sides, is_stack=False)
    return Layout(*sides, is_stack=True) if len(sides) == 3 else None


def plain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out axes of length 1 where there are more than three."""
    return tuple(side for side in shape if side != 1) if len(shape) > 3 else shape


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


def _require_layout(
    shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, read_as: ReadAs
) -> Layout:
    if dtype.hasobject:
        raise unusable(path, "Python objects, which would have to be unpickled", "numbers")
    layout = layout_of(shape, read_as.axis)
    if layout is None:
        channels_first = len(shape) == 4 and shape[1] in (3, 4)
        remedy = "save np.moveaxis(values, 1, -1): colour comes last" if channels_first else None
        raise unusable(path, f"shape {shape}", SHAPES, remedy)
    require_size(path, layout.images, layout.height, layout.width)
    require_dtype(dtype, path)
    return layout


class _Stack(ImageFile):
    """What both kinds of file share: an array and how its axes are read."""

    def __init__(
        self,
        path: Path,
        layout: Layout,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        read_as: ReadAs,
    ) -> None:
        self.layout = layout
        super().__init__(path, self.layout.images, read_as)
        self.values_decide |= dtype.kind == "f"
        self.depth = 8 * dtype.itemsize if dtype.kind == "u" else None
        self._look_at_axes(shape)

    def values(self) -> NDArray[Any]:
        """Return the array, mapped into memory where that can be done, in its plain shape."""
        array = self._array()
        return array.reshape(plain_shape(array.shape))

    @abstractmethod
    def _array(self) -> NDArray[Any]:
        """Return the array as the file has it."""

    def _decode(self, index: int) -> GrayImage:
        values = self.layout.image(self.values(), index)
        return from_array(values, self.path, self.read_as.bits)

    def _look_at_axes(self, shape: tuple[int, ...]) -> None:
        """Refuse colour that comes first, and note axes that may be meant otherwise.

        Raises:
            InputError: If the first three planes of three or four are the same.
        """
        if self.read_as.axis is not None or len(shape) != 3:
            return
        if self.layout.is_stack and shape[0] in (3, 4):
            planes = self.values()[:3]
            if all(np.array_equal(planes[0], plane) for plane in planes[1:]):
                raise unusable(
                    self.path,
                    f"{shape[0]} planes of {shape[1]} x {shape[2]}, three of them the same: colour "
                    "channels that come first, as PyTorch has them",
                    "(H, W), or (H, W, 3): colour comes last",
                    "save values[0]; or, if these are B-scans, say so with #axis=first",
                )
        elif not self.layout.is_stack and shape[2] in (3, 4):
            planes = np.moveaxis(self.values()[..., :3], 2, 0)
            if not all(np.array_equal(planes[0], plane) for plane in planes[1:]):
                kind = "last axis taken for red, green and blue"
                self.notes.append(Note(kind, f"shape {shape}; B-scans there: --read_as axis=last"))
        if self.layout.is_stack and shape[2] <= shape[1] and shape[2] < 2 * shape[0]:
            kind = "first axis of an array taken for B-scans, and the last may be meant"
            self.notes.append(Note(kind, f"shape {shape}; --read_as axis=first or axis=last says"))
        elif self.layout.is_stack and 2 * shape[1] <= shape[0]:
            kind = "first axis of an array taken for B-scans, and the middle one may be meant"
            self.notes.append(Note(kind, f"shape {shape}; if so, save np.moveaxis(values, 1, 0)"))

    def place(self, index: int | None) -> int:
        """Check which image is wanted; see :meth:`ImageFile.place`."""
        try:
            return super().place(index)
        except VolumeError as error:
            if self.count not in (3, 4):
                raise
            raise VolumeError(
                f"{error}; if these are colour channels, save np.moveaxis(values, 0, -1)"
            ) from error


class ArrayFile(_Stack):
    """An ``.npy`` file; only the B-scan that is wanted is read from the disk.

    Raises:
        InputError: If it holds no image.
    """

    intact = INTACT

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        with translated(path, INTACT), path.open("rb") as file:
            shape, dtype, begin = read_array_header(file, path)
            size = file.seek(0, 2)
        layout = _require_layout(plain_shape(shape), dtype, path, read_as)
        needed = begin + math.prod(shape) * dtype.itemsize
        if size < needed:
            raise unusable(path, f"{size:,} bytes: the file is cut", f"{needed:,} bytes")
        super().__init__(path, layout, plain_shape(shape), dtype, read_as)

    def _array(self) -> NDArray[Any]:
        """Map the array into memory."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)


class ArchiveFile(_Stack):
    """An ``.npz`` archive, whose array is unpacked into memory when it is first read.

    Archives often hold labels, ages or thickness profiles beside the scan: scalars and vectors are
    passed over. If more than one array could be an image, its name must be given.

    Args:
        path: The file.
        member: Name of the array; None for the only one that can be an image.
        read_as: What the archive does not say.

    Raises:
        InputError: If there is no such array, or several and no name.
    """

    intact = INTACT

    def __init__(self, path: Path, member: str | None = None, read_as: ReadAs = AS_SAID) -> None:
        headers = {
            name: array._replace(shape=plain_shape(array.shape))
            for name, array in read_archive_headers(path).items()
        }
        arrays = [name for name, (shape, *_) in headers.items() if len(shape) > 1]
        numbers = [name for name in arrays if headers[name].dtype.kind in "biuf"]
        candidates = [name for name in numbers if layout_of(headers[name].shape) is not None]
        if not candidates and len(arrays) == 1:
            candidates = arrays  # whose shape or type is what is wrong
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
        layout = _require_layout(array.shape, array.dtype, path, read_as)
        require_memory(path, *array)
        self._unpacked: NDArray[Any] | None = None
        super().__init__(path, layout, array.shape, array.dtype, read_as)

    def _array(self) -> NDArray[Any]:
        """Unpack the array, once."""
        if self._unpacked is None:
            with translated(self.path, INTACT), np.load(self.path, allow_pickle=False) as archive:
                self._unpacked = archive[self.member]
        return self._unpacked


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
