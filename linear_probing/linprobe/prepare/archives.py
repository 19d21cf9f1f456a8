"""Reading zip and tar archives member by member; nothing an archive says of itself is trusted.

A name that leads out of the folder, a link, a device or a password is an error; so is a member that
is cut short or whose checksum is wrong, and a tar without its end mark (tarfile takes a file cut
between two members for a complete one).
"""

from __future__ import annotations

import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from linprobe.prepare.metered import MeteredTar
from retfiner.common.errors import InputError

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".txz", ".tar.xz", ".tbz2", ".tar.bz2")
"""How the name of an archive that can be unpacked ends."""
FOREIGN_SUFFIXES = (".rar", ".7z")
"""How the name of an archive ends that the user has to unpack."""

_NO_ARCHIVES = (".npz", ".xlsx", ".docx")  # zips inside, but files to whoever uses them
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh")
_FOREIGN_MAGIC = (b"Rar!", b"7z\xbc\xaf\x27\x1c")
_COMPRESSIONS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
)
_ENCRYPTED, _PATCH = 0x1 | 0x40, 0x20  # general purpose bits 0, 6 and 5 of a zip's member
_UTF8 = 0x800  # bit 11: the name is UTF-8
_READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # zipfile: a version it does not know
    ValueError,  # a name that is not in the encoding it claims
)
_BLOCK = 512  # bytes of a tar's block
_FIRST = 512  # bytes that tell the kind of a file
_UNPACK = "unpack it with another program and give the folder"
_AGAIN = f"download it again, or {_UNPACK}"


@dataclass(frozen=True)
class Member:
    """A file within an archive.

    Attributes:
        name: As the archive has it.
        size: Bytes, as the archive says.
        open: Opens it for reading, once and before the next member is asked for.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Archive:
    """An open archive.

    Attributes:
        shown: Its name in messages.
        size: Bytes of all members together, as far as the archive says in advance (zip).
        members: The files; to be read in this order.
    """

    shown: str
    size: int | None
    members: Iterator[Member]


def is_archive(path: Path, *, by_content: bool = False) -> bool:
    """Say whether a file is an archive that :func:`open_archive` is meant for.

    Args:
        path: The file.
        by_content: Whether a file without a telling name is looked into.

    Raises:
        InputError: With ``by_content``, for a kind of archive that cannot be read here.
    """
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return True
    if not by_content or name.endswith(_NO_ARCHIVES):
        return False
    with path.open("rb") as stream:
        head = stream.read(_FIRST)
    if name.endswith(FOREIGN_SUFFIXES) or head.startswith(_FOREIGN_MAGIC):
        raise InputError(
            f"{path} is an archive of a kind that is not read here",
            expected=", ".join(SUFFIXES),
            remedy=_UNPACK,
        )
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"


@contextmanager
def open_archive(path: Path, shown: str) -> Iterator[Archive]:
    """Open a zip or a tar, compressed or not.

    Args:
        path: The file.
        shown: Its name in messages.

    Raises:
        InputError: If it is no archive, damaged, protected by a password, or holds anything but
            files and folders; the last also while the members are read.
    """
    with path.open("rb") as stream:
        head = stream.read(_FIRST)
    if not head.startswith(b"PK") and path.name.lower().endswith(".zip"):
        beginning = head[:40].decode("ascii", "replace") if head else "an empty file"
        raise InputError(f"{shown} is no zip archive", got=repr(beginning), remedy=_AGAIN)
    if head.startswith(b"PK"):
        with closing(_open_zip(path, shown)) as packed:
            files = [info for info in packed.infolist() if not info.filename.endswith(("/", "\\"))]
            for info in files:
                _check_zip_member(info, shown)
            members = (Member(_zip_name(i), i.file_size, partial(packed.open, i)) for i in files)
            yield Archive(shown, sum(info.file_size for info in files), members)
    else:
        with closing(_open_tar(path, shown)) as tar:
            yield Archive(shown, None, _tar_members(tar, shown))


def _open_zip(path: Path, shown: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _READ_ERRORS as error:
        raise _damaged(shown, None, error) from error


def _check_zip_member(info: zipfile.ZipInfo, shown: str) -> None:
    where = f"{shown}: {_zip_name(info)}"
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"{where} is protected by a password", remedy=_UNPACK)
    if info.flag_bits & _PATCH or info.compress_type not in _COMPRESSIONS:
        raise InputError(
            f"{where} is packed in a way that is not read here",
            got=f"compression method {info.compress_type}",
            remedy=_UNPACK,
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _no_file(shown, _zip_name(info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Read a name that is UTF-8 without saying so, as some programs write it."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _open_tar(path: Path, shown: str) -> MeteredTar:
    try:
        return MeteredTar(path)
    except _READ_ERRORS as error:
        raise _damaged(shown, None, error) from error


def _tar_members(packed: MeteredTar, shown: str) -> Iterator[Member]:
    last: str | None = None
    while True:
        try:
            info = packed.next()
        except _READ_ERRORS as error:
            raise _damaged(shown, last, error) from error
        if info is None:
            break
        last = _tar_name(info)
        if info.isfile():
            yield Member(last, info.size, partial(_open_in_tar, packed.tar, info))
        elif not info.isdir():
            raise _no_file(shown, last)
    _check_end(packed, shown, last)


def _open_in_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(info)
    if stream is None:
        raise tarfile.ReadError("no content")
    return stream


def _tar_name(info: tarfile.TarInfo) -> str:
    raw = info.name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _check_end(packed: MeteredTar, shown: str, last: str | None) -> None:
    """Check the zero block at the end, and read on to where compression keeps its checksum."""
    stream = packed.stream
    try:
        stream.seek(packed.tar.offset)
        complete = stream.read(_BLOCK) == bytes(_BLOCK)
        for _ in range(64):
            if not stream.read(1 << 20):
                break
    except _READ_ERRORS as error:
        raise _damaged(shown, last, error) from error
    if not complete:
        raise _damaged(shown, last, tarfile.ReadError("it has no end mark"))


@contextmanager
def member_errors(shown: str, member: str) -> Iterator[None]:
    """Turn what goes wrong while a member is read into an error that names it.

    Args:
        shown: Name of the archive.
        member: Name of the member.

    Raises:
        InputError: If the block raises what a damaged archive raises.
    """
    try:
        yield
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise _damaged(shown, member, error) from error


def safe_path(name: str, shown: str) -> PurePosixPath:
    r"""Turn a member's name into a path below the folder that is unpacked to.

    Args:
        name: As the archive has it; ``\`` separates like ``/``.
        shown: Name of the archive.

    Raises:
        InputError: If it is absolute, has a drive letter, or leads out of the folder.
    """
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise InputError(
            f"{shown} holds a file whose name leads out of the folder",
            got=repr(name),
            expected="names below the folder that is unpacked to",
            remedy="do not trust this archive; download it from the data set's own address",
        )
    return PurePosixPath(*(part for part in parts if part not in ("", ".")))


def is_clutter(path: PurePosixPath) -> bool:
    """Say whether a file was left by an operating system and belongs to no data set.

    Args:
        path: Relative to the download.
    """
    return (
        "__MACOSX" in path.parts
        or path.name.startswith("._")
        or path.name in (".DS_Store", "Thumbs.db", "desktop.ini")
    )


def _no_file(shown: str, name: str) -> InputError:
    return InputError(
        f"{shown}: {name} is a link or a device",
        expected="files and folders alone",
        remedy=_UNPACK,
    )


def _damaged(shown: str, member: str | None, error: Exception) -> InputError:
    where = f"{shown} is damaged or cut short" + (f", at {member}" if member else "")
    return InputError(where, got=str(error) or type(error).__name__, remedy=_AGAIN)
