"""Heidelberg Spectralis' ``.vol``, the raw export of HEYEX.

It holds reflectivity, floats in [0, 1]; ``curves.py`` says how it is shown. Pixels outside the scan
hold 3.4e38.

The layout is published, and any B-scan of any scan pattern can be read by itself. So no package is
used: eyepy (MIT licence) parses the file as a whole and refuses circle and star scans, and
oct-converter does not know the format.
"""

import struct
from pathlib import Path
from typing import IO

import numpy as np

from retfiner.vision.images.curves import displayed
from retfiner.vision.images.image_file import GrayImage, ImageFile, require_size, unusable
from retfiner.vision.images.read_as import AS_SAID, ReadAs

STARTS = (b"HSF-OCT", b"ep-v")
"""What a ``.vol`` begins with: HEYEX's own name of the format, or eyepy's, which writes it too."""

HEADER = 2048
"""Bytes before the infrared image."""

MARK = 4
"""Bytes of a B-scan's header that are alike in all of a file: the beginning of its version."""

SMALLEST = 16
"""Bytes of a B-scan's header up to its own size; a smaller one is no statement."""

NO_DATA = 1e30
"""Values from here on mark pixels outside the scan."""


class VolFile(ImageFile):
    """A ``.vol`` file: volume, line, circle or star scan.

    Layout, little-endian: a header of 2,048 bytes (A-scans at byte 12, B-scans at 16, depth at 20,
    size of the infrared image at 48 and 52, size of a B-scan's header at 100), the infrared image,
    8 bits a pixel, then for each B-scan its header, which says its own size at byte 12, and
    (depth, A-scans) floats.

    Raises:
        InputError: If it is no such file, cut, or its headers contradict each other.
    """

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        with path.open("rb") as file:
            start = file.read(HEADER)
            if not start.startswith(STARTS) or len(start) < HEADER:
                found = f"a file that begins with {start[:12]!r}"
                raise unusable(path, found, "Heidelberg's raw data")
            width, count, height = struct.unpack_from("<3i", start, 12)
            slo_width, slo_height = struct.unpack_from("<2i", start, 48)
            (said,) = struct.unpack_from("<i", start, 100)
            require_size(path, count, height, width)
            if min(slo_width, slo_height, said) < 0:
                raise unusable(path, "a negative size in the header", "an intact file")
            self._shape = (height, width)
            begin = HEADER + slo_width * slo_height
            self._begins = _find_bscans(file, begin, count, 4 * height * width, said, path)
        super().__init__(path, count, read_as)

    def _decode(self, index: int) -> GrayImage:
        height, width = self._shape
        values = np.fromfile(
            self.path, dtype="<f4", count=height * width, offset=self._begins[index]
        )
        values = values.reshape(self._shape).astype(np.float32, copy=False)
        is_data = (values >= 0) & (values < NO_DATA)  # false for NaN, too
        return displayed(np.where(is_data, values, 0).clip(0, 1), self.read_as.curve)


def _find_bscans(
    file: IO[bytes], begin: int, count: int, size: int, said: int, path: Path
) -> list[int]:
    """Find where each B-scan's ``size`` bytes of values begin.

    The size of the headers between them is taken from each one itself, or from the file's header,
    which said ``said``: eyepy's writer, for one, does not write the same into both.
    """
    end = file.seek(0, 2)
    walks = [_walk(file, begin, count, size, header) for header in (None, said)]
    exact = [begins for begins in walks if begins and begins[-1] + size == end]
    first = _own_size(file, begin)
    is_told = first is not None and SMALLEST <= first < end and first != said
    if exact or walks[0]:
        return exact[0] if exact else walks[0]
    if walks[1] and not (is_told and count == 1):  # one alone has no next to confirm its size
        return walks[1]
    needed = begin + count * (said + size)
    if is_told:
        raise unusable(
            path,
            f"{end:,} bytes; a B-scan's header has {said:,} of them by the file's header, and "
            f"{first:,} by the first B-scan's",
            f"{count} B-scans by one of the two: {needed:,} or "
            f"{begin + count * (int(first or 0) + size):,} bytes",
            "export it again",
        )
    found = f"{end:,} bytes" + (": the file is cut" if end < needed else ", no B-scans where due")
    raise unusable(path, found, f"{needed:,} for {count} B-scans", "export it again")


def _walk(file: IO[bytes], begin: int, count: int, size: int, said: int | None) -> list[int]:
    """Go from B-scan to B-scan; none if they do not follow one another within the file."""
    end = file.seek(0, 2)
    place, begins, mark = begin, [], b""
    for _ in range(count):
        own = _own_size(file, place)
        header = own if said is None else said
        if own is None or header is None or (said is None and header < SMALLEST):
            return []
        file.seek(place)
        found = file.read(MARK)
        if found != (mark or found) or place + header + size > end:
            return []
        mark = found
        begins.append(place + header)
        place += header + size
    return begins


def _own_size(file: IO[bytes], place: int) -> int | None:
    """Read what a B-scan's header says of its own size; None beyond the end of the file."""
    file.seek(place)
    start = file.read(16)
    return struct.unpack_from("<i", start, 12)[0] if len(start) == 16 else None
