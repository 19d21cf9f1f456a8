"""Images in tar files, as WebDataset has them: ``train-00000.tar#00000012.png@1536+48213``.

Behind the member's name stand where its content begins and its size in bytes, so that to read it is
one seek, or one request where the tar lies on a server. Without these numbers a tar of this machine
is searched for the name. The member's own header is read along: a table that is not of this tar is
noticed.
"""

from __future__ import annotations

import io
import re
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from retfiner.common.errors import InputError, shorten
from retfiner.vision.images.image_file import translated, unusable
from retfiner.vision.images.raster import RasterFile
from retfiner.vision.images.read_as import AS_SAID, ReadAs
from retfiner.vision.images.remote import read_range, size_of, url_of

HEADER = tarfile.BLOCKSIZE
_PLACED = re.compile(r"(.+)@(\d+)\+(\d+)")


class Member(NamedTuple):
    """A file in a tar: its name, where its content begins, and its size."""

    name: str
    begin: int
    size: int

    def __str__(self) -> str:
        return f"{self.name}@{self.begin}+{self.size}"


def require_member(path: Path, name: str) -> None:
    """Make sure that a tar holds a member; of one on a server, that it is long enough.

    Raises:
        InputError: If it does not.
    """
    with translated(path):
        member = _find(path, name)
        end = member.begin + member.size
        if size_of(path) < end:
            found = f"{size_of(path):,} bytes: the file is cut"
            raise unusable(path, found, f"{end:,}, with {member.name}")
        if url_of(path) is None:
            _require_header(path, member, read_range(path, member.begin - HEADER, HEADER))


def read_member(path: Path, name: str) -> bytes:
    """Read a member's content.

    Raises:
        InputError: If it is not there.
    """
    with translated(path):
        member = _find(path, name)
        content = read_range(path, member.begin - HEADER, HEADER + member.size)
        if len(content) < HEADER + member.size:
            require_member(path, name)
        _require_header(path, member, content[:HEADER])
    return content[HEADER:]


class TarImage(RasterFile):
    """A picture in a tar.

    Raises:
        InputError: If it is not there, or no picture that can be read.
    """

    def __init__(self, path: Path, member: str, read_as: ReadAs = AS_SAID) -> None:
        self._content = read_member(path, member)
        super().__init__(path, read_as)

    def _source(self) -> io.BytesIO:
        return io.BytesIO(self._content)


@lru_cache(maxsize=64)
def members_of(path: Path, changed: int) -> dict[str, Member]:
    """List the files in a tar by name, anew where it was ``changed`` at another time."""
    with tarfile.open(path) as tar:
        return {m.name: Member(m.name, m.offset_data, m.size) for m in tar if m.isfile()}


def _find(path: Path, text: str) -> Member:
    is_here, placed = url_of(path) is None, _PLACED.fullmatch(text)
    if is_here and not path.is_file():
        raise InputError(f"There is no tar {path}", expected="a file")
    if placed is not None:
        return Member(placed[1], int(placed[2]), int(placed[3]))
    if not is_here:
        raise unusable(path, f"the name {text} alone", "where it lies: name@begin+size, in bytes")
    known = members_of(path, path.stat().st_mtime_ns)
    if text not in known:
        raise unusable(path, f"no {text} in it", shorten(list(known)) or "a file")
    return known[text]


def _require_header(path: Path, member: Member, header: bytes) -> None:
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        found = tarfile.TarInfo("nothing")
    if (found.name, found.size) != (member.name, member.size):
        raise unusable(
            path,
            f"{found.name}, {found.size:,} bytes, at byte {member.begin:,}",
            f"{member.name}, {member.size:,} bytes",
            "take table and tars of one run of prepare_pairs.py --shards",
        )
