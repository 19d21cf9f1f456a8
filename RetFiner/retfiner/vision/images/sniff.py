"""Sniff an image file: say what can be said of it without decoding it.

``vision/sniff.py`` does the like for checkpoints.
"""

import errno
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.vision.images.address import ImageAddress
from retfiner.vision.images.png import SIGNATURE
from retfiner.vision.images.reading import (
    HEAD,
    open_images,
    reader_by_content,
    reader_of,
    unknown_kind,
)
from retfiner.vision.images.tar import require_member
from retfiner.vision.sniff import not_downloaded

PNG, JPEG = (SIGNATURE, b"IEND\xaeB`\x82"), (b"\xff\xd8", b"\xff\xd9")
"""First and last bytes of files whose end says whether they are whole."""

TAIL, LONG_TAIL = 64, 65536
"""Bytes at a file's end among which its end mark is looked for; some writers append to it."""


def why_unusable(image: ImageAddress | Path | str) -> str | None:
    """Say why an image cannot be used, without decoding it, or None.

    The reader that training uses opens the file, which takes a millisecond or less, several for a
    volume, so that a whole collection can be checked before training. It makes sure of all that the
    file says of itself: kind, size, depth, frames, the B-scan at the index. Pixels are decoded only
    where their values decide whether they can be used (floats, signed values). What this lets pass
    can be read, but for damage within compressed pixels, which shows only when they are decoded.
    """
    try:
        address = image if isinstance(image, ImageAddress) else ImageAddress.parse(image)
        if address.is_in_tar:
            require_member(address.path, str(address.member))
            return None
        problem = _look_at_bytes(address.path)
        if problem is None:
            file = open_images(address)
            file.check(file.place(address.index))
    except InputError as error:
        return error.in_one_line
    return problem


def _look_at_bytes(path: Path) -> str | None:
    try:
        start, end, size = _read_ends(path)
    except FileNotFoundError:
        return f"there is no file {path}"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    except ValueError as error:  # a NUL in it
        return f"{str(path)!r} cannot be the name of a file ({error})"
    return _judge(path, start, end, size)


def _read_ends(path: Path) -> tuple[bytes, bytes, int]:
    """Read a file's first bytes, its last ones, and its size."""
    if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
        kind = "a folder" if path.is_dir() else "a named pipe, a socket or a device"
        raise OSError(errno.EINVAL, kind)
    with path.open("rb") as file:
        start = file.read(HEAD)
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        end = file.read()
        if _lacks_end(start, end):
            file.seek(max(0, size - LONG_TAIL))
            end = file.read()
    return start, end, size


def _judge(path: Path, start: bytes, end: bytes, size: int) -> str | None:
    reader = reader_of(path)
    if size == 0:
        return f"{path} is empty"
    if reader is None:
        return unknown_kind(path).in_one_line
    is_other = reader.starts and not start.startswith(reader.starts)
    if is_other and reader_by_content(path) is None:
        other = not_downloaded(start)
        return f"{path} is no image: it begins with {start[:8]!r}" + (f", {other}" if other else "")
    return f"{path} ends too early: the file is cut" if _lacks_end(start, end) else None


def _lacks_end(start: bytes, end: bytes) -> bool:
    return any(start.startswith(first) and mark not in end for first, mark in (PNG, JPEG))
