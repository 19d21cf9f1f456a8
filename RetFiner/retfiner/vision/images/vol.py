"""Heidelberg Spectralis' ``.vol``, the raw export of HEYEX.

It holds reflectivity: floats in [0, 1], in which a retina is almost black. B-scans are shown as
HEYEX and Heidelberg's description of the export show them, by their fourth root; pixels outside the
scan, which hold 3.4e38, become black.

The layout is published, and any B-scan of any scan pattern can be read by itself. So no package is
used: eyepy (MIT licence) parses the file as a whole and refuses circle and star scans, and
oct-converter does not know the format.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retfiner.vision.images.image_file import GrayImage, ImageFile, require_size, unusable

STARTS = (b"HSF-OCT", b"ep-v")
"""What a ``.vol`` begins with: HEYEX's own name of the format, or eyepy's, which writes it too."""

HEADER = 2048
"""Bytes before the infrared image."""

NO_DATA = 1e30
"""Values from here on mark pixels outside the scan."""


def displayed(reflectivity: NDArray[np.float32]) -> GrayImage:
    """Show (H, W) reflectivity in [0, 1] by its fourth root, black where there is no data."""
    is_data = (reflectivity >= 0) & (reflectivity < NO_DATA)  # false for NaN, too
    return np.sqrt(np.sqrt(np.where(is_data, reflectivity, 0).clip(0, 1)))  # quicker than a power


class VolFile(ImageFile):
    """A ``.vol`` file: volume, line, circle or star scan.

    Layout, little-endian: a header of 2,048 bytes (A-scans at byte 12, B-scans at 16, depth at 20,
    size of the infrared image at 48 and 52, size of a B-scan's header at 100), the infrared image,
    8 bits a pixel, then for each B-scan its header and (depth, A-scans) floats.

    Raises:
        InputError: If it is no such file or cut.
    """

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(HEADER)
        if not start.startswith(STARTS) or len(start) < HEADER:
            raise unusable(path, f"a file that begins with {start[:12]!r}", "Heidelberg's raw data")
        width, count, height = struct.unpack_from("<3i", start, 12)
        slo_width, slo_height = struct.unpack_from("<2i", start, 48)
        (self._bscan_header,) = struct.unpack_from("<i", start, 100)
        require_size(path, count, height, width)
        if min(slo_width, slo_height, self._bscan_header) < 0:
            raise unusable(path, "a negative size in the header", "an intact file")
        self._shape = (height, width)
        self._first = HEADER + slo_width * slo_height
        self._step = self._bscan_header + 4 * height * width
        if size < self._first + count * self._step:
            expected = f"{self._first + count * self._step:,} for {count} B-scans"
            raise unusable(path, f"{size:,} bytes: the file is cut", expected)
        super().__init__(path, count)

    def _decode(self, index: int) -> GrayImage:
        height, width = self._shape
        begin = self._first + index * self._step + self._bscan_header
        values = np.fromfile(self.path, dtype="<f4", count=height * width, offset=begin)
        return displayed(values.reshape(self._shape).astype(np.float32, copy=False))
