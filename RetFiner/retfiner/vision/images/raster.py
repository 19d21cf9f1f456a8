"""PNG, JPEG, TIFF and other pictures, and TIFF stacks, through Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from retfiner.vision.images import tiff
from retfiner.vision.images.fundus import has_coloured_marks, is_coloured
from retfiner.vision.images.image_file import GrayImage, ImageFile, Note, translated, unusable
from retfiner.vision.images.png import significant_bits, used_bits
from retfiner.vision.images.read_as import AS_SAID, FUNDUS, ReadAs
from retfiner.vision.images.scaling import unit_floats, unit_integers

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""What a file may be, whatever its name. Pillow goes by content and knows more: it hands EPS to
Ghostscript, which runs programs, and that a file from elsewhere shall not bring about."""

MOVING = ("PNG", "GIF", "WEBP")
"""Formats of which several images in a file are an animation; in JPEG (MPO) they are previews."""


COLOURED = ("P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes of colour pictures."""
COLOURS_LOST = "colours become gray; fundus in a column modality would keep them"
COLOURED_MARKS = "coloured marks on a gray picture, as on a screenshot: they become gray, and stay"


class RasterFile(ImageFile):
    """An image, or a stack of them, in a format of Pillow.

    Colour images become luma; an alpha channel is dropped. Gray images keep their 16 bits; of
    colour images and those with alpha, Pillow reads the upper 8. Each page of a TIFF is an image,
    unless it is a preview. Pictures are turned as their EXIF says.

    Raises:
        InputError: If it is no image, an animation, or of a depth that cannot be scaled.
    """

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        self.path = path
        with opened(self._source(), path) as image:
            self._pages = [0]
            notes: list[Note] = []
            if image.format == "TIFF":
                self._pages, notes = tiff.bscan_pages(image, path)
            elif image.format in MOVING and getattr(image, "is_animated", False):
                raise unusable(
                    path,
                    f"an animation, {image.format} with several pictures in turn",
                    "one picture, or a TIFF of which every page is a B-scan",
                    "save the picture that is meant",
                )
            super().__init__(path, len(self._pages), read_as)
            self.notes += notes
            is_deep_png = image.format == "PNG" and image.mode.startswith("I")
            self._coloured: int | None = None
            self._significant = significant_bits(self._source()) if is_deep_png else None
            for page in self._pages:
                if image.format == "TIFF":
                    image.seek(page)
                self._look_at(image)

    def _source(self) -> Path | IO[bytes]:
        """Give what Pillow opens."""
        return self.path

    def _look_at(self, image: Image.Image) -> None:
        """Find out what of a page can be known without decoding it."""
        used = 16
        if image.format == "TIFF":
            about = tiff.stated(image)
            used = about.used
            tiff.require_whole(image, self.path)
            require_bits(about, image.mode, self.path)
            self.values_decide |= about.signed
        tiles: Any = getattr(image, "tile", None)
        if image.format == "BMP" and tiles and tiles[0][0] == "raw":
            _, (_, _, _, height), offset, args = tiles[0]
            needed, end = offset + args[1] * height, self.path.stat().st_size
            if needed > end:
                raise unusable(self.path, f"{end:,} bytes: the file is cut", f"{needed:,} bytes")
        self.values_decide |= image.mode in ("I", "F")
        if image.mode.startswith("I;16") and used == 16 and self._significant in (None, 16):
            self.depth = 16

    def _decode(self, index: int) -> GrayImage:
        with opened(self._source(), self.path) as image:
            return self._page(image, self._pages[index])

    def __iter__(self) -> Iterator[GrayImage]:
        """Read all pages in turn, the file being opened once."""
        with opened(self._source(), self.path) as image:
            for page in self._pages:
                yield self._page(image, page)

    def _page(self, image: Image.Image, page: int) -> GrayImage:
        if page:
            image.seek(page)
        if self.read_as.modality == FUNDUS:
            image.load()
            return rgb(image).astype(np.float32) / np.float32(255)
        self._coloured = page if image.mode in COLOURED else None
        return gray(image, self.path, self.read_as.bits, self._significant)

    def notes_on(self, image: GrayImage) -> list[Note]:
        """Return the notes, and one on colours that were not kept, or drawn upon it."""
        found = super().notes_on(image)
        if self._coloured is not None and self.read_as.modality is None:
            with opened(self._source(), self.path) as picture:
                picture.seek(self._coloured)
                colours = rgb(picture)
            if is_coloured(colours):
                found.append(Note(COLOURS_LOST))
            elif has_coloured_marks(colours):
                found.append(Note(COLOURED_MARKS))
        return found


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Give the colours of a picture of Pillow, turned upright: (H, W, 3)."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGB"))


@contextmanager
def opened(source: Path | IO[bytes], path: Path) -> Iterator[Image.Image]:
    """Open a file, or a part of it; what goes wrong inside the block is an error naming ``path``.

    Raises:
        InputError: If it cannot be read.
    """
    with translated(path, "an intact image"):
        try:
            image = Image.open(source, formats=FORMATS)
        except UnidentifiedImageError as error:
            found = tiff.unknown_layout(path) or "no picture, or a damaged one"
            raise unusable(path, found, "PNG, JPEG, TIFF or BMP of 8 or 16 bits a pixel") from error
        with image:
            yield image


def gray(
    image: Image.Image, path: Path, bits: int | None = None, significant: int | None = None
) -> GrayImage:
    """Decode an image of Pillow, turn it upright, and scale it by its bit depth.

    Args:
        image: The image.
        path: Where it comes from, for the message.
        bits: How many bits of 16 its values use, where that is known.
        significant: How many its file says are significant.

    Raises:
        InputError: If it holds integers of 32 bits, negative ones, or floats outside [0, 1].
    """
    about = None
    if image.format == "TIFF":
        about = tiff.stated(image)
        # Without a name it maps no file: Pillow 13 maps pages that lie on their side wrongly.
        image.filename = ""  # type: ignore[attr-defined]
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode != "F" and not image.mode.startswith("I") and not (about and about.signed):
        if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
    values = np.asarray(image)
    if about is not None:
        require_bits(about, image.mode, path)
    if image.mode == "F":
        scaled = unit_floats(values, path)
    elif about is not None and about.signed:
        values = values.astype(np.int8) if about.bits == 8 else values
        scaled = unit_integers(values, about.bits - 1, path, bits)
    else:
        depth = 16 if about is None else about.used
        if depth < 16 and values.max() >= 2**depth:  # its own word is wrong
            depth = 16
        if significant is not None and 8 <= significant < 16 and bits is None:
            depth = used_bits(values, significant)
        scaled = unit_integers(values, depth, path, bits)
    return np.float32(1) - scaled if about is not None and about.white_is_zero else scaled


def require_bits(about: tiff.Stated, mode: str, path: Path) -> None:
    """Refuse integers of 32 bits: how far they are used, nothing says.

    Raises:
        InputError: If they are.
    """
    if mode == "I" and about.bits > 16:
        remedy = "save them with 8 or 16 bits, scaled by what is white in them"
        raise unusable(path, f"{about.bits}-bit integers", "8 or 16 bits a pixel", remedy)
