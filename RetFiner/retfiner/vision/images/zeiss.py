"""Zeiss Cirrus: the ``.img`` files of its research export.

They are bare: 8-bit gray values as Cirrus shows them, 1,024 a scan deep, without any header. Width
and number of B-scans stand in the file's name (``..._Macular Cube 512x128_..._OD_sn1_cube_z.img``)
or, where a file was renamed, follow from its size, if it is that of one of Cirrus' two structural
cubes. The depth is held against the size, so that a file which was cut is never read shifted.

A-scans lie innermost, then depth, then B-scans, and each axis runs backwards: the first byte is the
last B-scan's lower right corner, as the readers of two research groups have it (AURA tools among
them). No package is used for this: oct-converter has to be told the size and takes the innermost
axis for depth.
"""

import re
from pathlib import Path

import numpy as np

from retfiner.vision.images.image_file import GrayImage, ImageFile, require_size, unusable
from retfiner.vision.images.read_as import AS_SAID, ReadAs

DEPTH = 1024
"""Pixels of an A-scan, in every kind of scan."""

CUBES = ((512, 128), (200, 200))
"""A-scans and B-scans of the structural cubes."""

WIDTHS = (1024, 512, 500, 350, 245, 200)
"""A-scans a B-scan, of all kinds of scan: line rasters, cubes, and those of angiography."""

_IN_NAME = re.compile(r"(?<!\d)(\d{2,4}) ?x ?(\d{1,4})(?!\d)", re.IGNORECASE)


class ImgFile(ImageFile):
    """A cube of Cirrus.

    Raises:
        InputError: If its size is not that of the scan that its name names.
    """

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        size = path.stat().st_size
        if "hidef" in path.name:
            raise unusable(path, "a high-definition raster", "a cube, ..._cube_z.img")
        width, count = _sides(path, size)
        require_size(path, count, DEPTH, width)
        self._shape = (DEPTH, width)
        super().__init__(path, count, read_as)

    def _decode(self, index: int) -> GrayImage:
        height, width = self._shape
        begin = (self.count - 1 - index) * height * width
        values = np.fromfile(self.path, dtype=np.uint8, count=height * width, offset=begin)
        return values[::-1].reshape(self._shape).astype(np.float32) / np.float32(255)


def _sides(path: Path, size: int) -> tuple[int, int]:
    """Return A-scans and B-scans: as the name says, else of the cube of this size."""
    named = [(int(width), int(count)) for width, count in _IN_NAME.findall(path.name)]
    for width, count in named or CUBES:
        if width * count * DEPTH == size:
            return width, count
    fitting = [
        f"{width}x{size // DEPTH // width}"
        for width in WIDTHS
        if size and not size % (DEPTH * width) and size // DEPTH // width <= DEPTH
    ]
    examples = " or ".join(f"{path.stem}_{sides}.img" for sides in fitting[:3])
    if not named:
        raise unusable(
            path,
            f"no A-scans x B-scans in the name, and {size:,} bytes",
            f"a name as Cirrus gives it ('..._Macular Cube 512x128_..._cube_z.img'), {DEPTH:,} "
            "pixels deep",
            f"rename it to {examples}, whichever was scanned"
            if examples
            else f"export it again: that is no whole number of A-scans of {DEPTH:,} bytes",
        )
    width, count = named[0]
    needed = width * count * DEPTH
    cube = next((f"{w}x{n}" for w, n in CUBES if w * n * DEPTH == size), None)
    raise unusable(
        path,
        f"{size:,} bytes" + (f", the size of a cube of {cube}" if cube else ""),
        f"{needed:,} bytes: {count} B-scans of {width} A-scans, as the name says, "
        f"{DEPTH:,} pixels deep",
        "export it again: the file is cut"
        if size < needed and not cube
        else "export it again, or correct the size in its name",
    )
