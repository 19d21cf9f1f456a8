"""Where the pixels of a DICOM file lie, and whether they are the frames that its header names.

Nothing is decoded: the length of uncompressed values, and the beginnings of compressed frames, are
held against the header, so that a file which is cut, or was scrambled, is known before training.
"""

import struct
from pathlib import Path
from typing import IO, Any, NamedTuple

from retfiner.vision.images.image_file import read_exactly, unusable

JPEG_2000 = (b"\xff\x4f", b"\x00\x00\x00\x0cjP")
JPEG = (b"\xff\xd8",)

_KEYWORDS = {
    (0x7FE0, 0x0010): "PixelData",
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_ZEISS_UID = "1.2.276.0.75."
"""What Zeiss' identifiers begin with, also where its name was taken out of the file."""


class Pixels(NamedTuple):
    """The element with the pixels.

    Its name, its VR (None if implicit), where its value begins, and how long it is (None where it
    says so only by its end).
    """

    keyword: str
    vr: str | None
    begin: int
    length: int | None


def find_pixels(file: IO[bytes], syntax: Any, path: Path) -> Pixels:
    """Read the head of the element at the file's position, where reading the header stopped.

    Raises:
        InputError: If it is none with pixels.
    """
    order = "<" if syntax.is_little_endian else ">"
    head = file.read(8)
    if len(head) < 8 or struct.unpack(f"{order}2H", head[:4]) not in _KEYWORDS:
        raise unusable(path, "a header of an image without pixels", "pixels, or the file is cut")
    keyword = _KEYWORDS[struct.unpack(f"{order}2H", head[:4])]
    vr, tail = None, head[4:]
    if not syntax.is_implicit_VR:
        vr, tail = head[4:6].decode("latin1"), read_exactly(file, 4, path, "the pixels' length")
    (length,) = struct.unpack(f"{order}I", tail)
    return Pixels(keyword, vr, file.tell(), None if length == _UNDEFINED else length)


def require_frames(file: IO[bytes], pixels: Pixels, header: Any, count: int, path: Path) -> None:
    """Make sure that the pixels are ``count`` frames.

    Raises:
        InputError: If the file is cut, has more frames or fewer, or they cannot be such frames.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        _require_length(file, pixels, header, count, path)
    elif syntax.is_encapsulated:
        starts = _fragment_starts(file, pixels.begin, path)
        _require_starts(starts, syntax, header, count, path)


def _require_length(file: IO[bytes], pixels: Pixels, header: Any, count: int, path: Path) -> None:
    from pydicom.pixels.utils import get_expected_length

    end, needed = file.seek(0, 2), get_expected_length(header)
    if pixels.length is None:
        raise unusable(path, "compressed pixels, and no word of how", "a transfer syntax")
    within = min(pixels.length, needed)
    if pixels.begin + within > end:
        expected = f"{pixels.begin + within:,} bytes, {within:,} of them pixels"
        raise unusable(path, f"{end:,} bytes: the file is cut", expected)
    if pixels.length < needed or pixels.length - needed >= max(needed // count, 2):
        raise _other_count(path, pixels.length * count / needed, count, f"{pixels.length:,} bytes")


def _fragment_starts(file: IO[bytes], begin: int, path: Path) -> list[bytes]:
    """Read the first bytes of each item with compressed pixels, the table of offsets left out."""
    end = file.seek(0, 2)
    file.seek(begin)
    starts: list[bytes] = []
    while file.tell() < end:
        group, element, size = struct.unpack("<2HI", read_exactly(file, 8, path, "pixels"))
        if (group, element) == _END:
            break
        here = file.tell()
        if (group, element) != _ITEM or size == _UNDEFINED:
            raise unusable(path, f"no compressed pixels at byte {here - 8:,}", "an item of them")
        if here + size > end:
            expected = f"{here + size:,} or more, in frame {len(starts)}"
            raise unusable(path, f"{end:,} bytes: the file is cut", expected)
        starts.append(file.read(min(size, 12)))
        file.seek(here + size)
    return starts[1:]


def _require_starts(starts: list[bytes], syntax: Any, header: Any, count: int, path: Path) -> None:
    """Hold the frames that begin, each in one fragment or several, against the header's number."""
    if "RLE" in syntax.name:
        found = len(starts)
    else:
        marks = JPEG_2000 if "2000" in syntax.name else JPEG
        found = sum(start.startswith(marks) for start in starts)
        if starts and not found:
            raise _scrambled(path, syntax, header)
    if found != count:
        raise _other_count(path, found, count, f"{len(starts)} compressed parts")


def _other_count(path: Path, found: float, count: int, what: str) -> Exception:
    return unusable(
        path,
        f"{what}, which are {found:.4g} frames",
        f"{count} frame{'s' if count > 1 else ''}, as NumberOfFrames says",
        "export it again; or write the right NumberOfFrames, if no frame is missing",
    )


def _scrambled(path: Path, syntax: Any, header: Any) -> Exception:
    words = (header.get(name) for name in ("Manufacturer", "ManufacturerModelName"))
    text = " ".join(str(word) for word in words if word).lower()
    uids = (str(header.get(name) or "") for name in ("SOPInstanceUID", "SeriesInstanceUID"))
    is_zeiss = any(word in text for word in ("zeiss", "cirrus", "plex elite"))
    if is_zeiss or any(uid.startswith(_ZEISS_UID) for uid in uids):
        return unusable(
            path,
            f"pixels that Zeiss has scrambled: they are labelled {syntax.name}, and are not",
            f"frames of {syntax.name}, as the DICOM standard has them",
            "export the cube as .img with Cirrus' research export, or its B-scans as pictures; how "
            "it is undone: github.com/pydicom/pydicom/discussions/1618",
        )
    return unusable(
        path,
        f"compressed frames that do not begin as {syntax.name} does: damaged, or scrambled",
        f"frames of {syntax.name}",
        "export it anew, uncompressed",
    )
