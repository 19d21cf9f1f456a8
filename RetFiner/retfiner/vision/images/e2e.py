"""Heidelberg Spectralis' ``.e2e``, the exchange format of HEYEX.

A chain of directories lists chunks; those of kind 0x40000000 hold images, B-scans of 16 bits a
pixel and infrared images of 8. A B-scan's 16 bits are an unsigned float, an exponent of 6 bits
above a mantissa of 10, and stand for reflectivity, as in a ``.vol``; ``curves.py`` says how it is
shown. The highest exponent marks pixels outside the scan, which become black.

Without its directories nothing would say whether all B-scans are there, so that a file which lacks
one is refused, as is one that was cut before a B-scan's chunk.

The layout was found out by the projects uocte and LibE2E. No package is used for it: eyepy 0.21 and
oct-converter 0.7 (MIT both) find the same B-scans, but read the mantissa's bits in reverse, unlike
uocte, which adds noise of up to 18 % to what is shown; and they bring scikit-image, or OpenCV, HDF5
and ffmpeg, along.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import shorten
from retfiner.vision.images.curves import displayed
from retfiner.vision.images.image_file import (
    GrayImage,
    ImageFile,
    read_exactly,
    require_size,
    unusable,
)
from retfiner.vision.images.read_as import AS_SAID, ReadAs

MARK = b"CMDb"
STARTS = (MARK, b"E2EMultipleVolumeFile")
"""What a file begins with; the second stands 64 bytes before the first."""

IMAGE, BSCAN = 0x40000000, 1
MAX_DIRECTORIES = 100_000
"""Each lists 512 chunks as a rule; a longer chain is a sign of damage."""

Key = tuple[int, ...]
"""Patient, visit, series and slice."""

INFRARED = (0, 0, 0)
AGAIN = "export it anew from HEYEX"

_DIRECTORY = struct.Struct("<12s4x20x4I")
_ENTRY = struct.Struct("<7Ii2H2I")
_CHUNK = struct.Struct("<12s3I2I3Ii2H2I")
_IMAGE = struct.Struct("<5I")


class E2EFile(ImageFile):
    """An ``.e2e`` file: the B-scans of all its OCT series, one series after the other.

    A file often holds several series, both eyes for example. They are counted on in the order of
    HEYEX's numbers for patient, visit and series, and within one in the order of its B-scans.

    Attributes:
        series: Number of B-scans of each series, by its key, in their order.

    Raises:
        InputError: If it is no such file, damaged, or without B-scans.
    """

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        found: dict[Key, tuple[int, int, int] | None] = {}
        with path.open("rb") as file:
            end = file.seek(0, 2)
            base = _find_mark(file, path)
            for _, key, start in _list_chunks(file, base, {IMAGE}, path):
                if key[3] < 0:
                    continue
                frame = _bscan_at(file, start, end, path)
                if frame != INFRARED:
                    found.setdefault(key, frame)
        if not found:
            raise unusable(path, "no OCT B-scan", "at least one", AGAIN)
        frames = [found[key] for key in sorted(found)]
        _require_all(frames, end, path)
        self._frames = [frame for frame in frames if frame is not None]
        self.series = Counter(key[:3] for key in sorted(found))
        super().__init__(path, len(self._frames), read_as)

    def _decode(self, index: int) -> GrayImage:
        begin, height, width = self._frames[index]
        values = np.fromfile(self.path, dtype="<u2", count=height * width, offset=begin)
        return _display_table(self.read_as.curve)[values.reshape(height, width)]


@cache
def _display_table(curve: str | None) -> NDArray[np.float32]:
    """Return what each of the 65,536 values is shown as."""
    bits = np.arange(2**16)
    mantissa, exponent = (bits & 1023) / 1024, bits >> 10
    normal = (1 + mantissa) * np.exp2(exponent - 63.0)
    reflectivity = np.where(exponent == 0, mantissa * np.exp2(-62.0), normal)
    reflectivity[exponent == 63] = 0
    return displayed(reflectivity, curve)


def _require_all(frames: list[tuple[int, int, int] | None], end: int, path: Path) -> None:
    """Refuse a file that is cut, and say which B-scans are not in it."""
    missing = [str(index) for index, frame in enumerate(frames) if frame is None]
    if missing:
        raise unusable(
            path,
            f"{end:,} bytes: the file is cut; of {len(frames)} B-scans by its list of contents, "
            f"{len(missing)} cut or missing: {shorten(missing)}",
            "all of them",
            AGAIN,
        )


def _find_mark(file: IO[bytes], path: Path) -> int:
    """Find where the database begins; positions in the file count from there."""
    file.seek(0)
    start = file.read(256)
    base = start.find(MARK)
    if base < 0 or not start.startswith(STARTS):
        raise unusable(path, f"a file that begins with {start[:21]!r}", "Heidelberg's mark, CMDb")
    return base


def read_chunks(
    file: IO[bytes], sizes: Mapping[int, int], path: Path
) -> Iterator[tuple[int, Key, bytes]]:
    """Read the beginnings of chunks: kind, key and content, of those that are long enough.

    ``sizes`` says how many bytes are wanted of which kind.
    """
    base = _find_mark(file, path)
    for kind, key, start in list(_list_chunks(file, base, set(sizes), path)):
        file.seek(start + _CHUNK.size)
        content = file.read(sizes[kind])
        if len(content) == sizes[kind]:
            yield kind, key, content


def _list_chunks(
    file: IO[bytes], base: int, kinds: Set[int], path: Path
) -> Iterator[tuple[int, Key, int]]:
    """List chunks of some kinds, the newest directory first: kind, key and place."""
    _, place, _ = _directory_at(file, base + 36, path)
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) == MAX_DIRECTORIES:
            raise unusable(path, "directories that do not end", "an intact file")
        seen.add(place)
        count, _, place = _directory_at(file, base + place, path)
        part = f"its list of contents, {count:,} entries"
        for entry in _ENTRY.iter_unpack(read_exactly(file, count * _ENTRY.size, path, part, AGAIN)):
            position, start, _, _, patient, study, series, scan, _, _, kind, _ = entry
            if kind in kinds and start > position:
                yield kind, (patient, study, series, scan), base + start


def _directory_at(file: IO[bytes], place: int, path: Path) -> tuple[int, int, int]:
    """Read a directory's header: number of entries, where the newest is, and the one before it."""
    file.seek(place)
    content = read_exactly(file, _DIRECTORY.size, path, "its list of contents", AGAIN)
    mark, count, newest, before, _ = _DIRECTORY.unpack(content)
    if not mark.startswith(b"MDb"):
        raise unusable(path, f"no list of contents at byte {place:,}", "one, as it says", AGAIN)
    return count, newest, before


def _bscan_at(file: IO[bytes], start: int, end: int, path: Path) -> tuple[int, int, int] | None:
    """Find an image chunk's values and their height and width, :data:`INFRARED` for another image.

    Returns:
        None where it begins, or would end, beyond the end of the file.
    """
    begin = start + _CHUNK.size + _IMAGE.size
    if begin > end:
        return None
    here = file.tell()
    file.seek(start)
    mark, _, _, _, size, *_, purpose, _, _, _ = _CHUNK.unpack(file.read(_CHUNK.size))
    _, _, _, height, width = _IMAGE.unpack(file.read(_IMAGE.size))
    file.seek(here)  # the directory is read on from there
    if not mark.startswith(b"MDbData"):
        raise unusable(path, f"no image at byte {start:,}", "one, as the list of contents says")
    if purpose != BSCAN or not height * width:
        return INFRARED
    require_size(path, 1, height, width)
    needed = 2 * height * width
    if size < _IMAGE.size + needed:
        raise unusable(path, "a B-scan that is cut", f"{height} x {width} values of 16 bits")
    return (begin, height, width) if begin + needed <= end else None
