"""The download as one folder, whatever was given: folders, archives, archives within them.

A single folder without archives is read where it lies. Everything else is brought together in a
temporary folder: archives are unpacked where they lie, files of folders are linked.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from linprobe.prepare.archives import FOREIGN_SUFFIXES, Budget, is_archive, is_clutter, unpack
from retfiner.common.errors import InputError, shorten
from retfiner.common.progress import progress

_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """What was given, for the record.

    Attributes:
        name: Name of the file or folder, without the path to it.
        size: Bytes; None for a folder.
        sha256: Of the file; None for a folder.
    """

    name: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Source:
    """A download, ready to be read.

    Attributes:
        folder: It lies here.
        files: What was given, and archives found in a folder that was given.
        notes: What was not unpacked.
    """

    folder: Path
    files: list[SourceFile]
    notes: list[str]


@dataclass
class _Content:
    """What a folder that was given holds, relative to it."""

    folder: Path
    files: list[PurePosixPath] = field(default_factory=list)
    archives: list[PurePosixPath] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    clutter: int = 0
    linked: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether a walk through the folder finds just these files."""
        return not (self.archives or self.clutter or self.linked)


@contextmanager
def open_source(given: Sequence[Path], scratch: Path) -> Iterator[Source]:
    """Bring a download together in one folder; what is temporary is removed afterwards.

    Yields:
        The download.

    Raises:
        InputError: If something given does not exist or cannot be unpacked.
    """
    contents, packed, files = _sort(given)
    notes = [f"Not unpacked: {shorten(c.foreign)}." for c in contents if c.foreign]
    if len(contents) == len(given) == 1 and contents[0].is_plain:
        yield Source(contents[0].folder, [_folder(contents[0])], notes)
        return
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=scratch))
    try:
        # One level down: a data root is searched for */train, and a download may have a train.
        folder = temporary / "unpacked"
        folder.mkdir()
        inner = [c.folder / archive for c in contents for archive in c.archives]
        budget = Budget.for_archives(sum(p.stat().st_size for p in (*packed, *inner)), folder)
        for content in contents:
            _join_folder(content, folder, budget)
        for path in packed:
            unpack(path, folder, budget, path.name)
        for path in files:
            _join_file(path, folder / path.name)
        records = [_folder(content) for content in contents]
        yield Source(folder, records + [_record(p) for p in (*packed, *inner, *files)], notes)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sort(given: Sequence[Path]) -> tuple[list[_Content], list[Path], list[Path]]:
    """Tell folders, archives and single files apart."""
    contents: list[_Content] = []
    packed: list[Path] = []
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            contents.append(_look_into(path))
        elif not path.is_file():
            raise InputError(
                f"There is no {path}",
                expected="a folder or an archive",
                remedy="correct --source",
            )
        elif is_archive(path, by_content=True):
            packed.append(path)
        else:
            files.append(path)
    if not contents and not packed:
        raise InputError(
            "--source holds neither a folder nor an archive",
            got=shorten([str(path) for path in files]),
            expected="the download as a folder, a zip or a tar",
        )
    return contents, packed, files


def _look_into(folder: Path) -> _Content:
    """List a folder; linked folders are entered, each folder once."""
    content = _Content(folder)
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        below = PurePosixPath(Path(place).relative_to(folder).as_posix())
        content.linked += sum(Path(place, name).is_symlink() for name in folders)
        seen.add(Path(place).resolve())
        folders[:] = [name for name in folders if Path(place, name).resolve() not in seen]
        for name in names:
            path = below / name
            if _is_special(Path(place, name)):
                raise InputError(
                    f"{Path(place, name)} is no file",
                    got="a named pipe, a socket or a device",
                    expected="files and folders alone",
                    remedy="remove it from the download",
                )
            if is_clutter(path):
                content.clutter += 1
            elif is_archive(Path(place, name)):
                content.archives.append(path)
            else:
                content.files.append(path)
                if name.lower().endswith(FOREIGN_SUFFIXES):
                    content.foreign.append(str(path))
    return content


def _is_special(path: Path) -> bool:
    """Say whether something is there that opening could wait for, or that has no end."""
    return path.exists() and not path.is_file()


def _join_folder(content: _Content, folder: Path, budget: Budget) -> None:
    """Link a folder's files below ``folder``, and unpack its archives there."""
    for path in content.files:
        _join_file(content.folder / path, folder / path)
    for path in content.archives:
        place = folder / path.parent
        unpack(content.folder / path, place, budget, f"{content.folder.name}/{path}")


def _join_file(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        _link(path, target)
    elif not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
        raise InputError(
            f"Two different files of the download would get the same place: {target.name}",
            got=f"{path} is one of them",
            remedy="give the folder around both instead of joining them",
        )


def _link(path: Path, target: Path) -> None:
    """Make a file appear in another place: by a hard link, else a soft one, else a copy."""
    path = path.resolve()
    try:
        os.link(path, target)
    except OSError:  # another disk, or not allowed
        try:
            target.symlink_to(path)
        except OSError:
            shutil.copyfile(path, target)


def _folder(content: _Content) -> SourceFile:
    return SourceFile(content.folder.resolve().name, None, None)


def _record(path: Path) -> SourceFile:
    digest = hashlib.sha256()
    size = path.stat().st_size
    title = f"hashing {path.name}"
    with (
        path.open("rb") as stream,
        progress(title, size, "B") as bar,
    ):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return SourceFile(path.name, size, digest.hexdigest())
