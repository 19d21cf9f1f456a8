"""Topcon: ``.fda`` and ``.fds`` files.

Both are a header and named chunks, of which one holds the B-scans. ``@IMG_JPEG`` has what Topcon's
software shows, JPEG 2000 images of 8 bits. Where it is absent there are raw values of 16 bits,
``@IMG_SCAN_03`` or ``@IMG_MOT_COMP_03`` (aligned); they are divided by 65,535 and nothing else is
done to them, so that they can be darker than on the device. Their header is of 22 bytes or, with
the position of the aligned B-scans, of 38; its last four say how many bytes of values follow, and
tell the two apart.

The layout was found out by the project uocte. No package is used for it: the current oct-converter
(0.7.0) cannot read either kind with NumPy 2.3 or later, whose ``fromstring`` it needs, and decodes
all B-scans to give one.
"""

import io
import struct
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from retfiner.vision.images.image_file import (
    GrayImage,
    ImageFile,
    read_exactly,
    require_size,
    unusable,
)
from retfiner.vision.images.raster import gray, opened
from retfiner.vision.images.read_as import AS_SAID, ReadAs
from retfiner.vision.images.scaling import from_array

STARTS = (b"FOCT",)
HEADER = 15
COMPRESSED = "@IMG_JPEG"
RAW = ("@IMG_SCAN_03", "@IMG_MOT_COMP_03")
RAW_HEADERS = (22, 38)
"""Bytes before raw values, without and with four positions."""
MAX_CHUNKS = 10_000
"""Files have some dozens; more are a sign that something else is read."""


class _Span(NamedTuple):
    """A part of the file, in bytes."""

    begin: int
    size: int


class TopconFile(ImageFile):
    """An ``.fda`` or ``.fds`` file; only the B-scan that is wanted is read from the disk.

    Raises:
        InputError: If it is no such file, or holds no B-scans of a known kind.
    """

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        self._dtype: str | None = None
        with path.open("rb") as file:
            chunks = list_chunks(file, path)
            if COMPRESSED in chunks:
                self._shape, self._frames = _compressed_frames(file, chunks[COMPRESSED], path)
            else:
                raw = [chunks[name] for name in RAW if name in chunks]
                if not raw:
                    expected = f"one of {COMPRESSED}, {', '.join(RAW)}"
                    raise unusable(path, f"chunks {', '.join(chunks) or 'none'}", expected)
                self._shape, self._dtype, self._frames = _raw_frames(file, raw[0], path)
        super().__init__(path, len(self._frames), read_as)
        self.depth = 16 if self._dtype == "<u2" else 8

    def _decode(self, index: int) -> GrayImage:
        frame = self._frames[index]
        with self.path.open("rb") as file:
            file.seek(frame.begin)
            content = file.read(frame.size)
        if self._dtype is not None:
            values = np.frombuffer(content, dtype=self._dtype).reshape(self._shape)
            return from_array(values, self.path, self.read_as.bits)
        with opened(io.BytesIO(content), self.path) as image:
            if image.size != self._shape[::-1]:  # before it is decoded
                found = f"a B-scan of {image.size[1]} x {image.size[0]} pixels"
                raise unusable(
                    self.path, found, "{} x {} pixels, as its header".format(*self._shape)
                )
            return gray(image, self.path)


def list_chunks(file: IO[bytes], path: Path) -> dict[str, _Span]:
    """Walk over the chunks; each is its name's length, name, size and content."""
    start = file.read(HEADER)
    if not start.startswith(STARTS):
        raise unusable(path, f"a file that begins with {start[:7]!r}", "FOCT, as Topcon's files do")
    end = file.seek(0, 2)
    file.seek(HEADER)
    chunks: dict[str, _Span] = {}
    for _ in range(MAX_CHUNKS):
        length = file.read(1)
        if length in (b"", b"\0"):
            break
        name = read_exactly(file, length[0], path, "a chunk's name").decode("latin1")
        (size,) = struct.unpack("<I", read_exactly(file, 4, path, f"the size of {name}"))
        chunks.setdefault(name, _Span(file.tell(), size))
        if file.tell() + size > end:
            raise unusable(path, f"{end:,} bytes: the file is cut", f"{name} as a whole")
        file.seek(size, 1)
    return chunks


def _compressed_frames(
    file: IO[bytes], chunk: _Span, path: Path
) -> tuple[tuple[int, int], list[_Span]]:
    """Find JPEG 2000 images, each with its size before it, behind a header of 25 bytes."""
    file.seek(chunk.begin)
    _, _, _, width, height, count, _ = struct.unpack(
        "<B6I", read_exactly(file, 25, path, "its B-scans' header")
    )
    require_size(path, count, height, width)
    frames = []
    for _ in range(count):
        (size,) = struct.unpack("<I", read_exactly(file, 4, path, "a B-scan's size"))
        frames.append(_Span(file.tell(), size))
        if file.seek(size, 1) > chunk.begin + chunk.size:
            raise unusable(path, f"{len(frames)} B-scans before the chunk ends", f"{count} B-scans")
    return (height, width), frames


def _raw_frames(
    file: IO[bytes], chunk: _Span, path: Path
) -> tuple[tuple[int, int], str, list[_Span]]:
    """Find bare values (B-scan, depth, A-scan) behind a header that says their size."""
    file.seek(chunk.begin)
    header = read_exactly(file, min(RAW_HEADERS[-1], chunk.size), path, "its B-scans' header")
    if len(header) < RAW_HEADERS[0]:
        raise unusable(path, f"a chunk of {chunk.size:,} bytes", "a header of 22")
    _, width, height, bits, count, _ = struct.unpack_from("<B4IB", header)
    require_size(path, count, height, width)
    dtypes = {8: "<u1", 16: "<u2"}
    if bits not in dtypes:
        raise unusable(path, f"{bits} bits a pixel", "8 or 16")
    size = height * width * bits // 8
    before = _raw_header(header, count * size, chunk.size, path)
    frames = [_Span(chunk.begin + before + index * size, size) for index in range(count)]
    return (height, width), dtypes[bits], frames


def _raw_header(header: bytes, needed: int, chunk: int, path: Path) -> int:
    """Tell how long the header before raw values is: that which names their size at its end."""
    named = {
        size: struct.unpack_from("<I", header, size - 4)[0]
        for size in RAW_HEADERS
        if size <= len(header)
    }
    for size, values in named.items():
        # A size of 0 says nothing; then the chunk's own length decides.
        if (values == needed and size + needed <= chunk) or (not values and size + needed == chunk):
            return size
    nearest = min(named.values(), key=lambda said: abs(said - needed))
    raise unusable(
        path,
        f"a chunk of {chunk:,} bytes, whose header says {nearest:,} of them are values",
        f"{needed:,} by the size of its B-scans, behind a header of "
        + " or ".join(map(str, RAW_HEADERS)),
        "export it again: the file is cut, or of another variant",
    )
