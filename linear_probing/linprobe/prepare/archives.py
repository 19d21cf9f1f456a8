"""The download as one folder, whatever was given: folders, archives, archives within them.

A single folder without archives is read where it lies. Everything else is brought together in a
temporary folder: archives are unpacked where they lie, files of folders are linked.

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
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from linprobe.prepare.files import is_clutter
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
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
_ENCRYPTED, _PATCH, _UTF8 = 0x1 | 0x40, 0x20, 0x800  # bits of a zip's member: 0 and 6, 5, 11
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
_BLOCK, _CHUNK = 512, 1 << 20  # bytes of a tar's block, and of what is copied at once
_UNPACK = "unpack it with another program and give the folder"
_AGAIN = f"download it again, or {_UNPACK}"

Member = tuple[str, int, Callable[[], IO[bytes]]]
"""A file within an archive: name, bytes, and how it is opened, before the next one is asked for."""


class SourceFile(NamedTuple):
    """What was given, for the record: name without the path to it, bytes and SHA-256 of a file."""

    name: str
    size: int | None = None
    sha256: str | None = None


class Source(NamedTuple):
    """A download, ready to be read: where it lies, what was given for it, what was not unpacked."""

    folder: Path
    files: list[SourceFile]
    notes: list[str]


class _Item(NamedTuple):
    """A file that was given: where it lies, the place it shall get, its name in messages."""

    path: Path
    place: PurePosixPath
    shown: str
    packed: bool


@contextmanager
def open_source(given: Sequence[Path], scratch: Path) -> Iterator[Source]:
    """Bring a download together in one folder; what is temporary is removed afterwards.

    Raises:
        InputError: If something given does not exist or cannot be unpacked.
    """
    items: list[_Item] = []
    plain = len(given) == 1
    for path in given:
        listed, alone = _list_folder(path) if path.is_dir() else (_single(path), False)
        items += listed
        plain &= alone
    if not any(path.is_dir() for path in given) and not any(item.packed for item in items):
        raise InputError(
            "--source holds neither a folder nor an archive",
            got=shorten([str(path) for path in given]),
            expected="the download as a folder, a zip or a tar",
        )
    foreign = [item.place for item in items if item.path.name.lower().endswith(FOREIGN_SUFFIXES)]
    notes = [f"Not unpacked: {shorten(list(map(str, foreign)))}."] * bool(foreign)
    if plain:
        yield Source(given[0], _records(given, items), notes)
        return
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=scratch))
    try:
        # One level down: a data root is searched for */train, and a download may have a train.
        folder = temporary / "unpacked"
        folder.mkdir()
        packed = sum(item.path.stat().st_size for item in items if item.packed)
        budget = Budget(max(MAX_SMALL, MAX_RATIO * packed), folder)
        for item in sorted(items, key=lambda item: item.packed):
            if item.packed:
                unpack(item.path, folder / item.place, budget, item.shown)
            else:
                _join(item.path, folder / item.place)
        yield Source(folder, _records(given, items), notes)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _single(path: Path) -> list[_Item]:
    if not path.is_file():
        expected, remedy = "a folder or an archive", "correct --source"
        raise InputError(f"There is no {path}", expected=expected, remedy=remedy)
    packed = is_archive(path, by_content=True)
    return [_Item(path, PurePosixPath() if packed else PurePosixPath(path.name), path.name, packed)]


def _list_folder(folder: Path) -> tuple[list[_Item], bool]:
    """List a folder, linked folders entered once; say whether it can be read where it lies."""
    items: list[_Item] = []
    seen: set[Path] = set()
    plain = True
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        seen.add(here.resolve())
        plain &= not any((here / name).is_symlink() for name in folders)
        folders[:] = [name for name in folders if (here / name).resolve() not in seen]
        for path in (here / name for name in names):
            below = PurePosixPath(path.relative_to(folder).as_posix())
            if path.exists() and not path.is_file():  # opening could wait, or never end
                raise InputError(
                    f"{path} is no file",
                    got="a named pipe, a socket or a device",
                    expected="files and folders alone",
                    remedy="remove it from the download",
                )
            if is_clutter(below):
                plain = False
                continue
            packed = is_archive(path)
            plain &= not packed
            target = below.parent if packed else below
            items.append(_Item(path, target, f"{folder.name}/{below}", packed))
    return items, plain


def _records(given: Sequence[Path], items: Sequence[_Item]) -> list[SourceFile]:
    """Describe what was given; archives in a folder count as well."""
    files = [item.path for item in items if item.packed or item.path in given]
    folders = [SourceFile(path.resolve().name) for path in given if path.is_dir()]
    return folders + [SourceFile(p.name, p.stat().st_size, file_sha256(p)) for p in files]


def _join(path: Path, target: Path) -> None:
    """Make a file appear in another place: by a hard link, else a soft one, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _require_same(path, target, f"{path} is one of them")
        return
    path = path.resolve()
    for attempt in (os.link, os.symlink, shutil.copyfile):
        try:
            attempt(path, target)
            return
        except OSError:  # another disk, or not allowed
            if attempt is shutil.copyfile:
                raise


def _require_same(path: Path, target: Path, got: str) -> None:
    if not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
        raise InputError(
            f"Two different files of the download would get the same place: {target.name}",
            got=got,
            remedy="unpack each archive into a folder of its own and give the folder around them",
        )


# ---- archives


@dataclass
class Budget:
    """What may still be unpacked, in all archives together; ``folder`` is on the disk for it."""

    limit: int
    folder: Path
    written: int = 0
    members: int = 0

    def check(self, coming: int, shown: str) -> None:
        """Raise an InputError if so many bytes more are suspicious, or more than the disk has."""
        if self.written + coming > self.limit or self.members > MAX_MEMBERS:
            raise InputError(
                f"{shown} unpacks to far more than its size explains",
                got=f"more than {(self.written + coming) / 1e9:.2f} GB in {self.members} files",
                expected=f"at most {self.limit / 1e9:.2f} GB in {MAX_MEMBERS} files",
                remedy="if you trust it, unpack it yourself and give the folder",
            )
        free = shutil.disk_usage(self.folder).free
        if coming + RESERVE > free:
            raise InputError(
                f"The disk of {self.folder.parent} has no room to unpack {shown}",
                got=f"{free / 1e9:.2f} GB free",
                expected=f"{(coming + RESERVE) / 1e9:.2f} GB",
                remedy="choose an --output on another disk, or give an unpacked folder",
            )


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


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_BLOCK)


def unpack(path: Path, folder: Path, budget: Budget, shown: str, depth: int = 1) -> None:
    """Unpack an archive, which messages call ``shown``, to a folder.

    Those within it (``depth`` counts) are unpacked where they lie, and removed. A file that is
    already there with the same content is left; what operating systems add is left out.

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
    inner, at = [], ""
    with progress(f"unpacking {path.name}", unit="B") as bar:
        try:
            for name, size, opened in _members(path, shown, budget):
                at = f", at {name}"
                place = _safe_path(name, shown)
                if is_clutter(place) or not place.parts:
                    continue
                _unpack_member((name, size, opened), folder / place, budget, shown)
                bar.update(size)
                if is_archive(folder / place):
                    inner.append(folder / place)
        except InputError:
            raise
        except _READ_ERRORS as error:
            got = str(error) or type(error).__name__
            told = f"{shown} is damaged or cut short{at}"
            raise InputError(told, got=got, remedy=_AGAIN) from error
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
                raise _no_file(where)
        budget.check(sum(info.file_size for info in files), shown)
        for info in files:
            yield _zip_name(info), info.file_size, partial(packed.open, info)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Read a name that is UTF-8 without saying so, as some programs write it."""
    try:
        says_so = info.flag_bits & _UTF8
        return info.filename if says_so else info.filename.encode("cp437").decode("utf-8")
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
            name = info.name
            if re.search("[\ud800-\udfff]", name):  # how Python keeps what is no UTF-8
                name = name.encode("utf-8", "surrogateescape").decode("latin-1")
            if info.isfile():
                yield name, info.size, partial(tarfile.ExFileObject, tar, info)
            elif not info.isdir():
                raise _no_file(f"{shown}: {name}")
        stream.seek(tar.offset)
        complete = stream.read(_BLOCK) == bytes(_BLOCK)
        for _ in range(64):  # on to where compression keeps its checksum
            if not stream.read(_CHUNK):
                break
        if not complete:
            raise tarfile.ReadError("it has no end mark")


def _no_file(where: str) -> InputError:
    return InputError(
        f"{where} is a link or a device", expected="files and folders alone", remedy=_UNPACK
    )


def _safe_path(name: str, shown: str) -> PurePosixPath:
    r"""Turn a member's name into a path below the folder, or refuse it; ``\`` is a ``/``."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name:
        raise InputError(
            f"{shown} holds a file whose name leads out of the folder",
            got=repr(name),
            expected="names below the folder that is unpacked to",
            remedy="do not trust this archive; download it from the data set's own address",
        )
    return PurePosixPath(*(part for part in parts if part not in ("", ".")))


def _unpack_member(member: Member, target: Path, budget: Budget, shown: str) -> None:
    """Copy a member's content, and check that it has the length it is said to have."""
    name, announced, opened = member
    budget.members += 1
    budget.check(announced, shown)
    with _writing(shown, name):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - opened as a context below
            dir=target.parent, prefix=".part-", delete=False
        )
    size = 0
    with file, opened() as stream:
        while size <= announced and (chunk := stream.read(_CHUNK)):
            size += len(chunk)
            budget.written += len(chunk)
            if size <= announced:
                with _writing(shown, name):
                    file.write(chunk)
    if size != announced:
        raise EOFError(f"{size} bytes or more where {announced} are announced")
    part = Path(file.name)
    with _writing(shown, name):
        if target.exists():
            _require_same(part, target, f"{shown} holds one of them")
            part.unlink()
        else:
            part.chmod(0o644)
            part.replace(target)


@contextmanager
def _writing(shown: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{shown}: {name} cannot be written", got=error) from error
