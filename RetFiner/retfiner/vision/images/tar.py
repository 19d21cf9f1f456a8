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
from retfiner.vision.images.address import ImageAddress
from retfiner.vision.images.image_file import AS_SAID, ReadAs, translated, unusable
from retfiner.vision.images.raster import RasterFile
from retfiner.vision.images.remote import read_range, size_of, url_of

SUFFIX = ".tar"
INTACT = "an intact tar"
_PLACED = re.compile(r"(.+)@(\d+)\+(\d+)")


class Member(NamedTuple):
    """A file in a tar: its name, where its content begins, and its size."""

    name: str
    begin: int
    size: int

    def __str__(self) -> str:
        return f"{self.name}@{self.begin}+{self.size}"


def is_in_tar(address: ImageAddress) -> bool:
    """Say whether an address names a member of a tar."""
    return address.member is not None and address.path.suffix.lower() == SUFFIX


def require_member(path: Path, name: str) -> None:
    """Make sure that a tar holds a member; of one on a server, that it is long enough.

    Raises:
        InputError: If it does not.
    """
    with translated(path, INTACT):
        member = _find(path, name)
        _require_length(path, member)
        if url_of(path) is None:
            _require_header(path, member, read_range(path, member.begin - 512, 512))


def read_member(path: Path, name: str) -> bytes:
    """Read a member's content.

    Raises:
        InputError: If it is not there.
    """
    with translated(path, INTACT):
        member = _find(path, name)
        content = read_range(path, member.begin - 512, 512 + member.size)
        _require_header(path, member, content[:512])
        if len(content) < 512 + member.size:
            _require_length(path, member)
    return content[512:]


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


def members_of(path: Path) -> dict[str, Member]:
    """List the files in a tar by name."""
    with tarfile.open(path) as tar:
        return {m.name: Member(m.name, m.offset_data, m.size) for m in tar if m.isfile()}


@lru_cache(maxsize=64)
def _members_of(path: Path, changed: int) -> dict[str, Member]:
    return members_of(path)


def _find(path: Path, text: str) -> Member:
    is_here = url_of(path) is None
    if is_here and not path.is_file():
        raise InputError(f"There is no tar {path}", expected="a file")
    placed = _PLACED.fullmatch(text)
    if placed is not None:
        return Member(placed[1], int(placed[2]), int(placed[3]))
    if not is_here:
        raise unusable(path, f"the name {text} alone", "where it lies: name@begin+size, in bytes")
    known = _members_of(path, path.stat().st_mtime_ns)
    if text not in known:
        raise unusable(path, f"no {text} in it", shorten(list(known)) or "a file")
    return known[text]


def _require_length(path: Path, member: Member) -> None:
    end = member.begin + member.size
    if size_of(path) < end:
        raise unusable(
            path, f"{size_of(path):,} bytes: the file is cut", f"{end:,}, with {member.name}"
        )


def _require_header(path: Path, member: Member, header: bytes) -> None:
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        _require_length(path, member)
        found = tarfile.TarInfo("no file")
    if (found.name, found.size) != (member.name, member.size):
        raise unusable(
            path,
            f"{found.name} of {found.size:,} bytes at byte {member.begin:,}",
            f"{member.name} of {member.size:,} bytes",
            "take table and tars of one run of prepare_pairs.py --shards",
        )
