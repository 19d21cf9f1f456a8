"""Unpacking archives, and archives within archives, within bounds."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from linprobe.prepare.archives import (
    Member,
    is_archive,
    is_clutter,
    member_errors,
    open_archive,
    safe_path,
)
from retfiner.common.errors import InputError

MAX_RATIO = 100
"""An archive that grows by more is taken for a bomb; images and raw volumes stay below."""
MAX_SMALL = 1 << 30
"""Bytes up to which the ratio does not matter."""
MAX_MEMBERS = 2_000_000
MAX_DEPTH = 3
"""Archives within archives within archives."""
RESERVE = 256 << 20
"""Bytes that are left free on the disk."""
_CHUNK = 1 << 20


@dataclass
class Budget:
    """What may still be unpacked, in all archives together.

    Args:
        limit: Most bytes.
        folder: Any folder of the disk that is written to.
    """

    limit: int
    folder: Path
    written: int = 0
    members: int = 0

    @classmethod
    def for_archives(cls, packed: int, folder: Path) -> Budget:
        """Allow what archives of a size may reasonably hold.

        Args:
            packed: Bytes of the archives.
            folder: Any folder of the disk that is written to.
        """
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


def unpack(path: Path, folder: Path, budget: Budget, shown: str, depth: int = 1) -> None:
    """Unpack an archive; those within it are unpacked where they lie, and removed.

    A file that is already there with the same content is left; what operating systems add to
    archives is left out.

    Args:
        path: The archive.
        folder: Where its members shall lie.
        budget: What may be written.
        shown: Its name in messages.
        depth: How many archives it lies in, itself included.

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
    inner: list[Path] = []
    with (
        open_archive(path, shown) as archive,
        tqdm(
            total=archive.size,
            desc=f"unpacking {path.name}",
            unit="B",
            unit_scale=True,
            disable=None,
            leave=False,
        ) as bar,
    ):
        budget.check(archive.size or 0, shown)
        for member in archive.members:
            place = safe_path(member.name, shown)
            if is_clutter(place) or not place.parts:
                continue
            target = folder / place
            _unpack_member(member, target, budget, shown)
            bar.update(member.size)
            if is_archive(target):
                inner.append(target)
    for archive_path in inner:
        within = f"{shown}/{archive_path.relative_to(folder).as_posix()}"
        unpack(archive_path, archive_path.parent, budget, within, depth + 1)
        archive_path.unlink()


def _unpack_member(member: Member, target: Path, budget: Budget, shown: str) -> None:
    budget.members += 1
    budget.check(member.size, shown)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as file:
            part = Path(file.name)
            _copy(member, file, budget, shown)
        put(part, target, shown)
    except OSError as error:
        raise InputError(f"{shown}: {member.name} cannot be written", got=error) from error


def _copy(member: Member, file: IO[bytes], budget: Budget, shown: str) -> None:
    """Copy a member's content, and check that it has the length it is said to have."""
    with member_errors(shown, member.name):
        stream = member.open()
    size = 0
    with stream:
        while True:
            with member_errors(shown, member.name):
                chunk = stream.read(_CHUNK)
            if not chunk:
                break
            size += len(chunk)
            budget.written += len(chunk)
            if size > member.size:
                break
            file.write(chunk)
    if size != member.size:
        with member_errors(shown, member.name):
            raise EOFError(f"{size} bytes or more where {member.size} are announced")


def put(part: Path, target: Path, shown: str) -> None:
    """Move a file into place, unless the very same file is there.

    Args:
        part: The file.
        target: Its place.
        shown: Where it comes from, for a message.

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
