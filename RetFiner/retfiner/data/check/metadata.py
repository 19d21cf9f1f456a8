"""What programs and cameras write beside a picture's pixels: it may name somebody, and is left out.

PNG has chunks of text, EXIF and a time; JPEG has EXIF, XMP, IPTC and comments. None of them tells
what the pixels are but EXIF's orientation, which stays. Pixels are not decoded: not a bit changes.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

from retfiner.vision.images.png import SIGNATURE

_REMARKS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")
_JPEG, _SCAN, _END, _COMMENT, _PROFILE = b"\xff\xd8", 0xDA, 0xD9, 0xFE, 0xE2
_APPLICATIONS, _KEPT = range(0xE0, 0xF0), (0xE0, 0xEE)
"""Segments that programs have to themselves; JFIF, and how Adobe has stored colours, are kept."""
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_BEHIND_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""What ends the values of a scan: a marker that is no restart."""


def without_remarks(content: bytes) -> bytes:
    """Return a PNG or JPEG without what stands beside its pixels; other content as it is."""
    if content.startswith(SIGNATURE):
        return _png(content)
    return _jpeg(content) if content.startswith(_JPEG) else content


def _png(content: bytes) -> bytes:
    kept, oriented = [SIGNATURE], _orientation(content)
    for kind, chunk in _chunks(content):
        if kind not in _REMARKS:
            kept.append(chunk)
        if kind == b"IHDR" and oriented:
            body = b"eXIf" + oriented
            kept.append(struct.pack(">I", len(oriented)) + body)
            kept.append(struct.pack(">I", zlib.crc32(body)))
        if kind == b"IEND":
            break
    return b"".join(kept)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk's kind, and its bytes; the last as far as it goes."""
    place = len(SIGNATURE)
    while place + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        end = place + 12 + size
        yield content[place + 4 : place + 8], content[place:end]
        place = end


def _jpeg(content: bytes) -> bytes:
    kept, oriented = [_JPEG], _orientation(content)
    if oriented:
        body = b"Exif\0\0" + oriented
        kept.append(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
    for marker, part in _segments(content):
        is_profile = marker == _PROFILE and part[4:].startswith(b"ICC_PROFILE\0")
        is_remark = marker == _COMMENT or (marker in _APPLICATIONS and marker not in _KEPT)
        if is_profile or not is_remark:
            kept.append(part)
    return b"".join(kept)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield markers and their segments, those of scans with their values, up to the end.

    Of a damaged file, what is left comes as a whole.
    """
    place = len(_JPEG)
    while (found := _MARKER.match(content, place)) is not None:
        marker = found[1][0]
        if marker == _END:
            yield marker, found[0]
            return
        size = 0
        if marker not in _WITHOUT_LENGTH and found.end() + 2 <= len(content):
            (size,) = struct.unpack_from(">H", content, found.end())
        end = found.end() + size
        if marker == _SCAN:
            behind = _BEHIND_SCAN.search(content, end)
            end = behind.start() if behind else len(content)
        yield marker, content[place:end]
        place = end
    yield 0, content[place:]


def _orientation(content: bytes) -> bytes:
    """Return EXIF that says how a picture is turned and nothing else; empty where it is upright."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many kinds; whoever reads it says what is wrong
        return b""
    if turned not in range(2, 9):
        return b""
    entry = struct.pack(">HHIHH", ExifTags.Base.Orientation, 3, 1, turned, 0)
    return b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
