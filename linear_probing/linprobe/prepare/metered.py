"""Tar archives whose headers cannot take all memory.

tarfile reads extended headers whole, however long they say they are, and packed zeros are long.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from pathlib import Path
from typing import IO, Any

MAX_HEADER_BYTES = 1 << 22
"""Most bytes that may be read for the headers of one member: names and dates, a kilobyte."""

_PACKED: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x5d\x00\x00\x80", lzma.open),
)


class Metered:
    """A stream that gives so many bytes and no more.

    Args:
        stream: What is read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.allowance: int | None = MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        """Read, within the allowance; without one, as the stream itself does.

        Raises:
            tarfile.ReadError: If more is asked for.
        """
        if self.allowance is not None:
            if not 0 <= size <= self.allowance:
                raise tarfile.ReadError("a header far longer than any name")
            self.allowance -= size
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        """Go to a place from the beginning."""
        return self._stream.seek(position)

    def tell(self) -> int:
        """Say where the next byte comes from."""
        return self._stream.tell()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class MeteredTar:
    """A tar, packed or not, that is read in order; headers within an allowance each.

    Args:
        path: The file.

    Raises:
        tarfile.TarError, OSError, EOFError, lzma.LZMAError: If it is no such archive.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(8)
        unpack = next((opened for mark, opened in _PACKED if start.startswith(mark)), open)
        self.stream = Metered(unpack(path, "rb"))
        try:
            self.tar = tarfile.TarFile(fileobj=self.stream, mode="r")  # type: ignore[arg-type]
        except BaseException:
            self.stream.close()
            raise

    def next(self) -> tarfile.TarInfo | None:
        """Read the next member's headers; while its content is read, there is no limit."""
        self.stream.allowance = MAX_HEADER_BYTES
        info = self.tar.next()
        # Kept by tarfile for random access, which is not wanted here; memory stays constant.
        self.tar.members.clear()  # type: ignore[attr-defined]
        self.stream.allowance = None
        return info

    def close(self) -> None:
        """Close the archive and its file."""
        self.tar.close()
        self.stream.close()
