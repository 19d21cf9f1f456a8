"""Sniff an image file: say what can be said of it without decoding it.

``vision/sniff.py`` does the like for checkpoints.
"""

import errno
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.vision.images.address import ImageAddress
from retfiner.vision.images.reading import RASTER, READERS, open_images, reader_of

PNG, JPEG = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"), (b"\xff\xd8", b"\xff\xd9")
"""First and last bytes of files whose end says whether they are whole."""

TIFF = (".tif", ".tiff")

HEAD = 160
"""Bytes at a file's beginning in which every kind of image shows itself."""

TAIL, LONG_TAIL = 64, 65536
"""Bytes at a file's end among which its end mark is looked for; some writers append to it."""


def why_unusable(image: ImageAddress | Path | str) -> str | None:
    """Say why an image cannot be used, from the name, the first and last bytes, or None.

    Reading two small pieces takes a fraction of a millisecond, so that a whole collection can be
    checked before training; damage in the middle of a file shows only when it is decoded. Where a
    file can hold several images, its header or directory is read as well, a few milliseconds, to
    make sure that there is one at the index.
    """
    try:
        address = image if isinstance(image, ImageAddress) else ImageAddress.parse(image)
        problem = _look_at_bytes(address.path)
        if problem is None and _is_worth_opening(address):
            open_images(address).place(address.index)
    except InputError as error:
        return " ".join(str(error).split())
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
    if reader is None:
        return f"{path} is no image of a known kind ({', '.join(READERS)})"
    if size == 0:
        return f"{path} is empty"
    if reader.starts and not start[reader.start_at :].startswith(reader.starts):
        return f"{path} is no image: it begins with {start[:8]!r}"
    return f"{path} ends too early: the file is cut" if _lacks_end(start, end) else None


def _lacks_end(start: bytes, end: bytes) -> bool:
    return any(start.startswith(first) and mark not in end for first, mark in (PNG, JPEG))


def _is_worth_opening(address: ImageAddress) -> bool:
    """PNG, JPEG and bitmap hold one image: unless an index is given, nothing is to be found out."""
    holds_one = reader_of(address.path) is RASTER and address.path.suffix.lower() not in TIFF
    return address.index is not None or not holds_one
