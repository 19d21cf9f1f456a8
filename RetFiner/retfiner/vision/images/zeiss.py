"""Zeiss Cirrus: the ``.img`` files of its research export.

They are bare: 8-bit gray values as Cirrus shows them, without any header. Width and number of
B-scans stand in the file's name (``..._Macular Cube 512x128_..._OD_sn1234_cube_z.img``) or, where a
file was renamed, follow from its size, if it is that of one of the two cubes Cirrus makes.

A-scans lie innermost, then depth, then B-scans, and each axis runs backwards: the first byte is the
last B-scan's lower right corner, as the readers of two research groups have it (AURA tools among
them). No package is used for this: oct-converter has to be told the size and takes the innermost
axis for depth.
"""

import re
from pathlib import Path

import numpy as np

from retfiner.vision.images.image_file import GrayImage, ImageFile, require_size, unusable

CUBES = {512 * 1024 * 128: (512, 128), 200 * 1024 * 200: (200, 200)}
"""Size in bytes of Cirrus' cubes -> A-scans and B-scans."""

_IN_NAME = re.compile(r"(?<!\d)(\d{2,4})x(\d{1,4})(?!\d)")


class ImgFile(ImageFile):
    """A cube of Cirrus.

    Raises:
        InputError: If its size does not fit its name.
    """

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        named = _IN_NAME.search(path.name)
        sides = CUBES.get(size) if named is None else (int(named[1]), int(named[2]))
        if sides is None or not all(sides):
            raise unusable(
                path,
                f"no A-scans x B-scans in the name, and {size:,} bytes",
                "a name as Cirrus gives it, '..._Macular Cube 512x128_..._cube_z.img'",
                "write the size into the name: scan_512x128.img",
            )
        width, count = sides
        height, rest = divmod(size, width * count)
        if rest or "hidef" in path.name:
            raise unusable(
                path, f"{size:,} bytes", f"{count} B-scans of {width} A-scans, as the name says"
            )
        require_size(path, count, height, width)
        self._shape = (height, width)
        super().__init__(path, count)

    def _decode(self, index: int) -> GrayImage:
        height, width = self._shape
        begin = (self.count - 1 - index) * height * width
        values = np.fromfile(self.path, dtype=np.uint8, count=height * width, offset=begin)
        return values[::-1].reshape(self._shape).astype(np.float32) / np.float32(255)
