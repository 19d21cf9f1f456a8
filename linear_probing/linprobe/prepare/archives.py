"""Unpacking zip and tar archives, and archives within archives, within bounds.

Nothing an archive says of itself is trusted. A name that leads out of the folder, a link, a device
or a password is an error; so is a member that is cut short or whose checksum is wrong, a tar
without its end mark (tarfile takes a file cut between two members for a complete one), and an
archive that unpacks to far more than its size explains. Extended headers of a tar, which tarfile
reads whole however long they say they are, are read within an allowance.
"""

from __future__ import annotations

import bz2
import filecmp
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from retfiner.common.errors import InputError
from retfiner.common.progress import progress

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".txz", ".tar.xz", ".tbz2", ".tar.bz2")
"""How the name of an archive that can be unpacked ends."""
FOREIGN_SUFFIXES = (".rar", ".7z")
"""How the name of an archive ends that the user has to unpack."""
MAX_RATIO = 100
"""An archive that grows by more is taken for a bomb; images and raw volumes stay below."""
MAX_SMALL = 1 << 30
"""Bytes up to which the ratio does not matter."""
MAX_MEMBERS = 2_000_000
MAX_DEPTH = 3
"""Archives within archives within archives."""
RESERVE = 256 << 20
"""Bytes that are left free on the disk."""
MAX_HEADER_BYTES = 1 << 22
"""Most bytes that may be read for the headers of one member of a tar: names and dates."""

_NO_ARCHIVES = (".npz", ".xlsx", ".docx")  # zips inside, but files to whoever uses them
_PACKED: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x5d\x00\x00\x80", lzma.open),
)
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", *(mark for mark, _ in _PACKED[:3]))
_FOREIGN_MAGIC = (b"Rar!", b"7z\xbc\xaf\x27\x1c")
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
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
_CHUNK = 1 << 20
_UNPACK = "unpack it with another program and give the folder"
_AGAIN = f"download it again, or {_UNPACK}"


class Member(NamedTuple):
    """A file within an archive; opened once, before the next one is asked for."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass
class Budget:
    """What may still be unpacked, in all archives together; ``folder`` is on the disk for it."""

    limit: int
    folder: Path
    written: int = 0
    members: int = 0

    @classmethod
    def for_archives(cls, packed: int, folder: Path) -> Budget:
        """Allow what archives of so many bytes may reasonably hold."""
        return cls(max(MAX_SMALL, MAX_RATIO * packed), folder)

    def check(self, coming: int, shown: str) -> None:
        """Check that so many bytes more may be written.

        Raises:
            InputError: If that is suspiciously much or the disk has not that much space.
        """
        if self.written + coming > self.limit or self.members > MAX_MEMBERS:
            raise InputError(
                f"{shown} unpacks to far more than its size explains",
                got=f"more than {_gigabytes(self.written + coming)} in {self.members} files",
                expected=f"at most {_gigabytes(self.limit)} in {MAX_MEMBERS} files",
                remedy="if you trust it, unpack it yourself and give the folder",
            )
        free = shutil.disk_usage(self.folder).free
        if coming + RESERVE > free:
            raise InputError(
                f"The disk of {self.folder.parent} has no room to unpack {shown}",
                got=f"{_gigabytes(free)} free",
                expected=f"{_gigabytes(coming + RESERVE)}",
                remedy="choose an --output on another disk, or give an unpacked folder",
            )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def is_archive(path: Path, *, by_content: bool = False) -> bool:
    """Say whether a file is an archive that :func:`unpack` is meant for.

    With ``by_content``, a file without a telling name is looked into.

    Raises:
        InputError: With ``by_content``, for a kind of archive that cannot be read here.
    """
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return True
    if not by_content or name.endswith(_NO_ARCHIVES):
        return False
    head = _head(path)
    if name.endswith(FOREIGN_SUFFIXES) or head.startswith(_FOREIGN_MAGIC):
        raise InputError(
            f"{path} is an archive of a kind that is not read here",
            expected=", ".join(SUFFIXES),
            remedy=_UNPACK,
        )
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"


def is_clutter(path: PurePosixPath) -> bool:
    """Say whether a file was left by an operating system and belongs to no data set."""
    return (
        "__MACOSX" in path.parts
        or path.name.startswith("._")
        or path.name in (".DS_Store", "Thumbs.db", "desktop.ini")
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_FIRST)


def unpack(path: Path, folder: Path, budget: Budget, shown: str, depth: int = 1) -> None:
    """Unpack an archive; those within it are unpacked where they lie, and removed.

    A file that is already there with the same content is left; what operating systems add to
    archives is left out.

    Args:
        path: The archive.
        folder: Where its members shall lie.
        budget: What may be written.
        shown: Its name in messages.
        depth: How many archives it lies in (itself included).

    Raises:
        InputError: If the archive is damaged, unsafe or too large, or two different files would
            get the same place.
    """
    if depth > MAX_DEPTH:
        raise InputError(
            f"{shown} lies too deep in other archives",
            expected=f"at most {MAX_DEPTH} levels",
            remedy="unpack the outer one yourself and give the folder",
        )
    inner, at = [], None
    title = f"unpacking {path.name}"
    with progress(title, unit="B") as bar:
        try:
            for member in _members(path, shown, budget):
                at = member.name
                place = _safe_path(at, shown)
                if is_clutter(place) or not place.parts:
                    continue
                _unpack_member(member, folder / place, budget, shown)
                bar.update(member.size)
                if is_archive(folder / place):
                    inner.append(folder / place)
        except InputError:
            raise
        except _READ_ERRORS as error:
            where = f"{shown} is damaged or cut short" + (f", at {at}" if at else "")
            raise InputError(
                where, got=str(error) or type(error).__name__, remedy=_AGAIN
            ) from error
    for archive in inner:
        within = f"{shown}/{archive.relative_to(folder).as_posix()}"
        unpack(archive, archive.parent, budget, within, depth + 1)
        archive.unlink()


def _members(path: Path, shown: str, budget: Budget) -> Iterator[Member]:
    head = _head(path)
    if head.startswith(b"PK"):
        return _zip_members(path, shown, budget)
    if path.name.lower().endswith(".zip"):
        beginning = head[:40].decode("ascii", "replace") if head else "an empty file"
        raise InputError(f"{shown} is no zip archive", got=repr(beginning), remedy=_AGAIN)
    return _tar_members(path, shown)


def _zip_members(path: Path, shown: str, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(path) as packed:
        files = [info for info in packed.infolist() if not info.filename.endswith(("/", "\\"))]
        for info in files:
            _check_zip_member(info, shown)
        budget.check(sum(info.file_size for info in files), shown)
        for info in files:
            yield Member(_zip_name(info), info.file_size, partial(packed.open, info))


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
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise _no_file(shown, _zip_name(info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Read a name that is UTF-8 without saying so, as some programs write it."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _Metered:
    """A stream that gives so many bytes and no more; without an allowance, as it is."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close
        self.allowance: int | None = MAX_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if self.allowance is not None:
            if not 0 <= size <= self.allowance:
                raise tarfile.ReadError("a header far longer than any name")
            self.allowance -= size
        return self._stream.read(size)


def _tar_members(path: Path, shown: str) -> Iterator[Member]:
    head = _head(path)
    opened = next((opened for mark, opened in _PACKED if head.startswith(mark)), open)
    with opened(path, "rb") as file:
        stream = _Metered(file)
        tar = tarfile.TarFile(fileobj=stream, mode="r")  # type: ignore[arg-type]
        while True:
            stream.allowance = MAX_HEADER_BYTES
            info = tar.next()
            # Kept by tarfile for random access, which is not wanted here; memory stays constant.
            tar.members.clear()  # type: ignore[attr-defined]
            stream.allowance = None
            if info is None:
                break
            name = _tar_name(info)
            if info.isfile():
                yield Member(name, info.size, partial(_open_in_tar, tar, info))
            elif not info.isdir():
                raise _no_file(shown, name)
        stream.seek(tar.offset)
        complete = stream.read(_BLOCK) == bytes(_BLOCK)
        for _ in range(64):  # on to where compression keeps its checksum
            if not stream.read(_CHUNK):
                break
        if not complete:
            raise tarfile.ReadError("it has no end mark")


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


def _no_file(shown: str, name: str) -> InputError:
    return InputError(
        f"{shown}: {name} is a link or a device",
        expected="files and folders alone",
        remedy=_UNPACK,
    )


def _safe_path(name: str, shown: str) -> PurePosixPath:
    r"""Turn a member's name into a path below the folder; ``\`` separates like ``/``.

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


@contextmanager
def _writing(shown: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{shown}: {name} cannot be written", got=error) from error


def _unpack_member(member: Member, target: Path, budget: Budget, shown: str) -> None:
    """Copy a member's content, and check that it has the length it is said to have."""
    budget.members += 1
    budget.check(member.size, shown)
    with _writing(shown, member.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - opened as a context below
            dir=target.parent, prefix=".part-", delete=False
        )
    size = 0
    with file, member.open() as stream:
        while size <= member.size and (chunk := stream.read(_CHUNK)):
            size += len(chunk)
            budget.written += len(chunk)
            if size <= member.size:
                with _writing(shown, member.name):
                    file.write(chunk)
    if size != member.size:
        raise EOFError(f"{size} bytes or more where {member.size} are announced")
    with _writing(shown, member.name):
        put(Path(file.name), target, shown)


def put(part: Path, target: Path, shown: str) -> None:
    """Move a file into place, unless the very same file is there.

    Raises:
        InputError: If another file, or a folder, is there.
    """
    if not target.exists():
        part.chmod(0o644)
        part.replace(target)
        return
    same = target.is_file() and filecmp.cmp(part, target, shallow=False)
    part.unlink()
    if not same:
        raise InputError(
            f"Two different files of the download would get the same place: {target.name}",
            got=f"{shown} holds one of them",
            remedy="unpack each archive into a folder of its own and give the folder around them",
        )
