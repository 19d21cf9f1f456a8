"""PNG, JPEG, TIFF and BMP, and TIFF stacks, through Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageSequence

from retfiner.vision.images.image_file import (
    GrayImage,
    ImageFile,
    translated,
    unit_floats,
    unusable,
)

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""What a file may be, whatever its name. Pillow goes by content and knows more: it hands EPS to
Ghostscript, which runs programs, and that a file from elsewhere shall not bring about."""


class RasterFile(ImageFile):
    """An image, or a stack of them, in a format of Pillow.

    Colour images become luma; an alpha channel is dropped. Gray images keep their 16 bits; of
    colour images and those with alpha, Pillow reads the upper 8. Every page of a TIFF is an image.

    Raises:
        InputError: If it is no image.
    """

    def __init__(self, path: Path) -> None:
        with opened(path, path) as image:
            super().__init__(path, getattr(image, "n_frames", 1))

    def _decode(self, index: int) -> GrayImage:
        with opened(self.path, self.path) as image:
            if index:
                image.seek(index)
            return gray(image, self.path)

    def __iter__(self) -> Iterator[GrayImage]:
        """Read all pages in turn, the file being opened once."""
        with opened(self.path, self.path) as image:
            for page in ImageSequence.Iterator(image):
                yield gray(page, self.path)


@contextmanager
def opened(source: Path | IO[bytes], path: Path) -> Iterator[Image.Image]:
    """Open a file, or a part of it; what goes wrong inside the block is an error naming ``path``.

    Raises:
        InputError: If it cannot be read.
    """
    with translated(path, "an intact image"), Image.open(source, formats=FORMATS) as image:
        yield image


def gray(image: Image.Image, path: Path) -> GrayImage:
    """Decode an image of Pillow and scale it by its bit depth.

    Raises:
        InputError: If it holds integers of 32 bits or floats outside [0, 1].
    """
    image.load()
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32) / np.float32(65535)
    if image.mode == "I":  # in which Pillow hands over 16-bit images of some formats
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise unusable(path, "32-bit integers", "8 or 16 bits a pixel")
        return values.astype(np.float32) / np.float32(65535)
    if image.mode == "F":
        return unit_floats(np.asarray(image), path)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
