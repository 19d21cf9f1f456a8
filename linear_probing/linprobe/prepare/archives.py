"""The download as one folder, whatever was given: folders, archives, archives within them.

A single folder without archives is read where it lies. Everything else is brought together in a
temporary folder: archives are unpacked, files of folders are linked.
"""

from __future__ import annotations

import filecmp
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.common.progress import track

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".txz", ".tar.xz", ".tbz2", ".tar.bz2")
"""How the name of an archive that can be unpacked ends."""
CLUTTER = ("__MACOSX", "._*", ".DS_Store", "Thumbs.db", "desktop.ini")
"""What operating systems leave behind."""
DEPTH = 3
"""Archives within archives within archives are unpacked, and no deeper."""

_NO_ARCHIVES = (".npz", ".xlsx", ".docx")  # zips inside, but files to whoever uses them
_UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError,
               RuntimeError, ValueError)  # fmt: skip
"""What is raised for an archive that is damaged, protected, or packed in an unknown way."""


class Source(NamedTuple):
    """A download, ready to be read: where it lies, and what was given for it.

    That is the name without the path to it; of a file also ``size`` in bytes and ``sha256``.
    """

    folder: Path
    files: list[dict[str, Any]]


@contextmanager
def open_source(given: Sequence[Path], scratch: Path) -> Iterator[Source]:
    """Bring a download together in one folder; what is temporary is removed afterwards.

    Raises:
        InputError: If something given does not exist or cannot be unpacked.
    """
    for path in given:
        if not path.exists():
            expected, remedy = "a folder or an archive", "correct --source"
            raise InputError(f"There is no {path}", expected=expected, remedy=remedy)
    packed = [path for path in given if path.is_file() and is_archive(path, by_content=True)]
    folders = [path for path in given if path.is_dir()]
    if not packed and not folders:
        raise InputError(
            "--source holds neither a folder nor an archive",
            got=shorten([str(path) for path in given]),
            expected="the download as a folder, a zip or a tar",
            remedy="unpack what is packed otherwise, and give the folder",
        )
    within = [path for folder in folders for path in _archives_below(folder)]
    files: list[dict[str, Any]] = [{"name": path.resolve().name} for path in folders]
    hashed = [*(path for path in given if path.is_file()), *within]
    files += [{"name": path.name, "size": path.stat().st_size, "sha256": file_sha256(path)}
              for path in hashed]  # fmt: skip
    if len(given) == 1 and folders and not within:
        yield Source(given[0], files)
        return
    with tempfile.TemporaryDirectory(prefix=".download-", dir=scratch) as temporary:
        # One level down: a data root is searched for */train, and a download may have a train.
        folder = Path(temporary, "unpacked")
        folder.mkdir()
        for path in given:
            if path in packed:
                unpack(path, folder)
            elif path.is_dir():
                _merge(path, folder)
            else:
                _link(str(path), str(folder / path.name))
        for _ in range(DEPTH):
            for path in _archives_below(folder):
                unpack(path, path.parent)
                path.unlink()
        yield Source(folder, files)


def is_archive(path: Path, *, by_content: bool = False) -> bool:
    """Say whether a file is an archive, by its name or, without a telling one, by its content."""
    name = path.name.lower()
    if name.endswith(SUFFIXES) or not by_content or name.endswith(_NO_ARCHIVES):
        return name.endswith(SUFFIXES)
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive to a folder, where files of the same place and content may lie.

    Raises:
        InputError: If it cannot be read, or a name leads out of the folder.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as place:
        try:
            if path.name.lower().endswith(".zip") or path.open("rb").read(2) == b"PK":
                with zipfile.ZipFile(path) as packed:
                    files = packed.infolist()
                    for info in track(files, f"unpacking {path.name}", len(files), "file"):
                        info.filename = _inside(info.filename, path)
                        packed.extract(info, place)
            else:
                with tarfile.open(path) as tar:
                    for member in track(tar, f"unpacking {path.name}", unit="file"):
                        member.name = _inside(member.name, path)
                        tar.extract(member, place, filter="data")
        except InputError:
            raise
        except _UNREADABLE as error:
            raise InputError(
                f"{path} cannot be unpacked",
                got=str(error) or type(error).__name__,
                remedy="download it again, or unpack it with another program and give the folder",
            ) from error
        _merge(Path(place), folder)


def _archives_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if is_archive(p) and p.is_file()
                  and not p.name.startswith("._"))  # fmt: skip


def _inside(name: str, archive: Path) -> str:
    r"""Refuse a name that leads out of the folder; Windows writes ``\`` for ``/``."""
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        raise InputError(
            f"{archive} holds a file whose name leads out of the folder",
            got=repr(name),
            expected="names below the folder that is unpacked to",
            remedy="do not trust this archive; download it from the data set's own address",
        )
    return name.replace("\\", "/")


def _merge(folder: Path, target: Path) -> None:
    """Make all files below a folder appear below another one."""
    ignored = shutil.ignore_patterns(*CLUTTER)
    shutil.copytree(folder, target, ignore=ignored, copy_function=_link, dirs_exist_ok=True)


def _link(path: str, target: str) -> None:
    """Make a file appear in another place: by a hard link, or a soft one on another disk."""
    if os.path.lexists(target):
        if not filecmp.cmp(path, target, shallow=False):
            raise InputError(
                f"Two different files of the download would get the same place: {target}",
                got=path,
                remedy="unpack each archive into a folder of its own and give the folder around "
                "them",
            )
        return
    try:
        os.link(os.path.realpath(path), target)
    except OSError:
        Path(target).symlink_to(Path(path).resolve())
