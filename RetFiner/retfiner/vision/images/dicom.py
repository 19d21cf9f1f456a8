"""DICOM images and multi-frame B-scan volumes, through pydicom.

A file is known by its content, whatever its name, also without the preamble that old archives leave
out. ``dicom_pixels.py`` makes sure that its frames are there, ``dicom_display.py`` says how their
values are shown; MONOCHROME1 is inverted, colour becomes luma.
"""

import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.vision.images.dicom_display import (
    fraction,
    frame_settings,
    has_window,
    placeholders,
    windowed,
)
from retfiner.vision.images.dicom_pixels import find_pixels, require_frames
from retfiner.vision.images.image_file import (
    GrayImage,
    ImageFile,
    Note,
    require_size,
    translated,
    unusable,
)
from retfiner.vision.images.read_as import AS_SAID, FUNDUS, ReadAs
from retfiner.vision.images.scaling import require_used_bits, to_luma, unit_floats

MARK_AT, MARK = 128, b"DICM"

NEEDED = ("Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
"""What pydicom does without asking for; it names the rest itself."""

DECODERS = {
    f"1.2.840.10008.1.2.4.{number}": package
    for package, numbers in (
        ("pillow", (50, 51)),
        ("python-gdcm", (57, 70)),
        ("pyjpegls", (80, 81)),
        ("pylibjpeg pylibjpeg-openjpeg", (90, 91, 201, 202, 203)),
    )
    for number in numbers
}
"""Compressed transfer syntax -> what to install to decode it; none of them under the GPL."""


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM by its content, whatever its name."""
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return False
        with path.open("rb") as file:
            return begins_as_dicom(file.read(MARK_AT + 32))
    except (OSError, ValueError):  # the latter: a name that no file can have
        return False


def begins_as_dicom(start: bytes) -> bool:
    """Say whether a file that begins so carries DICOM's mark, or elements without a preamble."""
    return start[MARK_AT : MARK_AT + 4] == MARK or _begins_with_elements(start)


def _begins_with_elements(start: bytes) -> bool:
    """Look for two elements of the groups that a DICOM file begins with, one behind the other."""
    for order in "<>":
        if len(start) < 16:
            return False
        first = struct.unpack_from(f"{order}2H", start)
        if first[0] not in (0x0002, 0x0008):
            continue
        explicit = start[4:6].isalpha() and start[4:6].isupper()
        layout, place = ("H", 6) if explicit else ("I", 4)
        (length,) = struct.unpack_from(order + layout, start, place)
        behind = 8 + length
        if length % 2 or behind + 4 > len(start):
            continue
        second = struct.unpack_from(f"{order}2H", start, behind)
        if first < second and second[0] <= 0x0010:
            return True
    return False


class DicomFile(ImageFile):
    """A DICOM file; only the frame that is wanted is decoded.

    Raises:
        InputError: If it is no DICOM image, not whole, or no installed package decodes its transfer
            syntax.
    """

    intact = "an intact DICOM image"

    def __init__(self, path: Path, read_as: ReadAs = AS_SAID) -> None:
        from pydicom.pixels.utils import get_nr_frames

        with translated(path, "an intact DICOM file"), path.open("rb") as file:
            self._header = _read_header(file, path)
            if self._header.get("Rows") is None:
                raise unusable(path, "a DICOM file without an image", "an image")
            lacking = [name for name in NEEDED if self._header.get(name) is None]
            if lacking:
                raise unusable(path, f"a header without {', '.join(lacking)}", "an image's header")
            count = int(get_nr_frames(self._header, warn=False))
            self._header.NumberOfFrames = count  # where it was empty or 0
            require_size(path, count, self._header.Rows, self._header.Columns)
            self._syntax = self._header.file_meta.TransferSyntaxUID
            self._pixels = find_pixels(file, self._syntax, path)
            require_frames(file, self._pixels, self._header, count, path)
            self._shift = _shift_of(self._header, path)
        super().__init__(path, count, read_as)
        self.values_decide |= self._pixels.keyword != "PixelData"
        settings = frame_settings(self._header, 0, path)
        passed_over = placeholders(self._header, settings)
        if passed_over:
            kind = "DICOM slope or window of 0, a placeholder, passed over"
            self.notes.append(Note(kind, ", ".join(passed_over)))
        if not has_window(settings) and "BitsStored" in self._header:
            self.depth = int(self._header.BitsStored)

    def check(self, index: int) -> None:
        """Find what would fail in :meth:`read`, but damage within compressed values."""
        from pydicom.pixels.decoders.base import DecodeRunner

        super().check(index)
        with translated(self.path, self.intact), self.path.open("rb") as file:
            runner = DecodeRunner(self._syntax)
            runner.set_source(file)
            runner.set_options(**self._options())
            runner.validate()
        if self._pixels.keyword == "PixelData" and self._header.get("SamplesPerPixel", 1) == 1:
            with translated(self.path, self.intact):
                kind = "i" if self._header.PixelRepresentation else "u"
                size = max(1, self._header.BitsAllocated // 8)
                self._shown(np.zeros((1, 2), f"{kind}{size}"), index)

    def _decode(self, index: int) -> GrayImage:
        from pydicom.pixels import get_decoder

        with self.path.open("rb") as file:
            file.seek(self._pixels.begin)
            values, _ = get_decoder(self._syntax).as_array(
                file,
                index=index,
                correct_unused_bits=self._shift is None,
                **self._options(),
            )
        if self._shift is not None:
            up, down = self._shift
            values = np.right_shift(np.left_shift(values, up), down)
        return self._shown(values, index)

    def _options(self) -> dict[str, Any]:
        """Gather what pydicom decodes by."""
        from pydicom.pixels import as_pixel_options

        about = {"pixel_keyword": self._pixels.keyword, "transfer_syntax_uid": self._syntax}
        if self._pixels.vr is not None:
            about["pixel_vr"] = self._pixels.vr
        return as_pixel_options(self._header, **about)

    def _shown(self, values: NDArray[Any], index: int) -> GrayImage:
        """Show a frame's values as (H, W) in [0, 1]."""
        from pydicom.pixels import apply_color_lut

        photometric = str(self._header.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            values = apply_color_lut(values, self._header)
            return self._toned(fraction(values, 0, np.iinfo(values.dtype).max))
        if values.ndim == 3:
            return self._toned(fraction(values, 0, 2**self._header.BitsStored - 1))
        if np.issubdtype(values.dtype, np.floating):  # Float Pixel Data has no bits to scale by
            return unit_floats(values, self.path)
        settings = frame_settings(self._header, index, self.path)
        if self.read_as.bits is not None and self.depth == 16 and values.dtype.kind == "u":
            require_used_bits(values, self.read_as.bits, self.path)
            settings.BitsStored = self.read_as.bits
        gray = windowed(values, settings)
        return np.float32(1) - gray if photometric == "MONOCHROME1" else gray

    def _toned(self, colours: NDArray[np.float32]) -> GrayImage:
        return colours[..., :3] if self.read_as.modality == FUNDUS else to_luma(colours)


def _read_header(file: IO[bytes], path: Path) -> Any:
    """Read all elements before the pixels; the file then stands at these."""
    from pydicom import dcmread
    from pydicom.filereader import read_dataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    start = file.read(MARK_AT + 32)
    if not begins_as_dicom(start):
        raise unusable(path, f"no DICOM file: it begins with {start[:8]!r}", "a DICOM file")
    # Group 2 is read before the file itself: a deflated one would be unpacked at once.
    file.seek(MARK_AT + 4 if start[MARK_AT : MARK_AT + 4] == MARK else 0)
    about = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if "TransferSyntaxUID" in about:
        _require_decoder(path, about.TransferSyntaxUID)
    file.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True)
    if "TransferSyntaxUID" not in header.file_meta:
        is_implicit, is_little = header.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return header


def _require_decoder(path: Path, syntax: Any) -> None:
    from pydicom.pixels import get_decoder

    try:
        # Deflated files, reports as a rule, can claim any size; there is no bound to unpacking.
        is_available = get_decoder(syntax).is_available and not syntax.is_deflated
    except NotImplementedError:
        is_available = False  # video, for example
    if is_available:
        return
    package = DECODERS.get(syntax)
    raise InputError(
        f"The image {path} is compressed in a way that no installed package decodes",
        got=f"transfer syntax {syntax.name} ({syntax})",
        expected="uncompressed values, or RLE, JPEG, JPEG-LS or JPEG 2000",
        remedy=f"pip install {package}" if package else "write it anew, uncompressed",
    )


def _shift_of(header: Any, path: Path) -> tuple[int, int] | None:
    """Say by how many bits values are moved up and down where they do not lie at the lower end.

    Raises:
        InputError: If the high bit leaves no room for the stored bits.
    """
    high, stored = header.get("HighBit"), header.get("BitsStored")
    if None in (high, stored) or header.file_meta.TransferSyntaxUID.is_compressed:
        return None
    allocated = header.BitsAllocated
    if high == stored - 1 or allocated not in (8, 16, 32):
        return None
    if not stored - 1 <= high < allocated:
        found = f"{stored} bits stored up to bit {high}, of {allocated}"
        raise unusable(path, found, f"a high bit of {stored - 1} to {allocated - 1}")
    return allocated - 1 - high, allocated - stored
