"""Copies: byte-identical files, and groups that what they share makes one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256


def identical_files(paths: Sequence[Path]) -> list[list[Path]]:
    """Find groups of two or more files with the very same content, in the order of their first.

    Only files of equal size are read, so that gigabytes of different ones cost little.

    Raises:
        InputError: If a file cannot be read.
    """
    groups = [list(paths)]
    tests: tuple[Callable[[Path], Hashable], ...] = (lambda p: p.stat().st_size, file_sha256)
    for tell_apart in tests:
        parts: dict[Hashable, list[Path]] = defaultdict(list)
        for k, group in enumerate(groups):
            for path in group:
                try:
                    parts[k, tell_apart(path)].append(path)
                except OSError as error:
                    raise InputError(f"{path} cannot be read", got=error) from error
        groups = [part for part in parts.values() if len(part) > 1]
    return groups


class Groups:
    """Disjoint groups of names that can be joined (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the name that stands for a name's group: the one that was seen first."""
        while (parent := self._parent.setdefault(name, name)) != name:
            name = parent
        return name

    def join(self, first: str, *others: str) -> None:
        """Make the groups of names one, named after the first name's."""
        for other in others:
            self._parent[self.of(other)] = self.of(first)
