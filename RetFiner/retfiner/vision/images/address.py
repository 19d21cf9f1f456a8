"""Which image: a file, or one B-scan of a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.vision.images.read_as import AS_SAID, ReadAs, is_setting

ARCHIVES = (".npz", ".tar")
"""Files whose arrays, or files, have names."""

_is_file = os.path.isfile  # half the time of Path's: tables have many rows
_shared = lru_cache(maxsize=4096)(Path)  # one for the many images of a volume or a tar


@dataclass(frozen=True, slots=True)
class ImageAddress:
    """An image by its file and its place in it.

    Written ``scan.png``, ``scan.e2e#12`` or, for one of several arrays of an archive,
    ``scan.npz#bscans`` and ``scan.npz#bscans#12``, or of a tar ``pairs.tar#7.png``; then, where
    needed, what the file does not say: ``scan.npy#12#bits=12``.

    Attributes:
        path: The file.
        index: Which of its B-scans, from 0; None where it holds one image.
        member: Name in an ``.npz`` archive or a tar; None where only one is an image.
        read_as: What the file does not say of its images.
    """

    path: Path
    index: int | None = None
    member: str | None = None
    read_as: ReadAs = AS_SAID

    @classmethod
    def parse(cls, text: str | Path) -> ImageAddress:
        """Read an address as it stands in a table.

        A file whose own name contains ``#`` wins over what the name could mean.

        Raises:
            InputError: If a file is named whose index is no whole number, or a setting is unknown.
        """
        text = str(text)
        if "#" not in text or _is_file(text):
            return cls(Path(text))
        file, _, word = text.rpartition("#")
        if is_setting(word):
            address = cls.parse(file)
            return replace(address, read_as=address.read_as.including(word))
        before, _, last = text.rpartition("#")
        is_index = last.isascii() and last.isdigit() and len(last) <= 9
        index = int(last) if is_index else None
        file, _, member = (before if is_index else text).rpartition("#")
        names_member = file.lower().endswith(ARCHIVES) and member
        if names_member and not (is_index and _is_file(before)):
            return cls(_shared(file), index, member)
        if is_index:
            return cls(_shared(before), index)
        if _is_file(before):
            raise InputError(
                f"{text} names no B-scan of {before}",
                got=f"{last!r} after the #",
                expected="a whole number, 0 for the first B-scan",
            )
        return cls(Path(text))

    @property
    def is_in_tar(self) -> bool:
        """Whether it is a member of a tar."""
        return self.member is not None and self.path.suffix.lower() == ARCHIVES[1]

    @property
    def file(self) -> Path:
        """The file that holds it: of a tar, its member."""
        return self.path / str(self.member) if self.is_in_tar else self.path

    def __str__(self) -> str:
        parts = (self.path, self.member, self.index)
        settings = str(self.read_as).split()
        return "#".join([*(str(part) for part in parts if part is not None), *settings])
