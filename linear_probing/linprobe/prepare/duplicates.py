"""Copies: byte-identical files, and groups that what they share makes one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256

K = TypeVar("K", bound=Hashable)

_SAMPLE = 4096
"""Bytes from the middle of a file that tell most files of equal size apart."""


def identical_files(paths: Sequence[Path]) -> list[list[Path]]:
    """Find files with the very same content.

    Files are told apart by size, then by a few bytes from the middle; only what is left is read as
    a whole, so that gigabytes of different files cost little.

    Returns:
        Groups of two or more, in the order of their first file.

    Raises:
        InputError: If a file cannot be read.
    """
    groups = [list(paths)]
    for tell_apart in (_size, _sample, file_sha256):
        groups = [part for group in groups for part in _split(group, tell_apart) if len(part) > 1]
    return groups


def _split(paths: Iterable[Path], tell_apart: Callable[[Path], Hashable]) -> list[list[Path]]:
    parts: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            parts[tell_apart(path)].append(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read", got=error) from error
    return list(parts.values())


def _size(path: Path) -> int:
    return path.stat().st_size


def _sample(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, _size(path) // 2 - _SAMPLE // 2))
        return stream.read(_SAMPLE)


class Groups(Generic[K]):
    """Disjoint groups of keys that can be joined (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[K, K] = {}

    def of(self, key: K) -> K:
        """Return the key that stands for a key's group: the one that was seen first."""
        root = self._parent.setdefault(key, key)
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[key] != root:
            self._parent[key], key = root, self._parent[key]
        return root

    def join(self, first: K, *others: K) -> None:
        """Make the groups of keys one, named after the first key's."""
        kept = self.of(first)
        for other in others:
            self._parent[self.of(other)] = kept
