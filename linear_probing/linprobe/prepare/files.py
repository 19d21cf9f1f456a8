"""Files of an unpacked download: at any depth, in an order that counts, by names that are safe."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from retfiner.common.errors import InputError, shorten

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""How the name of an ordinary image file ends, in lower case."""

TOLERATED = 0.05
"""Share of a table's rows or of a folder's files that may be unusable; more is a wrong download."""

_DIGITS = re.compile(r"(\d+)")


def is_clutter(path: PurePosixPath) -> bool:
    """Say whether a file was left by an operating system and belongs to no data set."""
    left = path.name.startswith("._") or path.name in (".DS_Store", "Thumbs.db", "desktop.ini")
    return left or "__MACOSX" in path.parts


def list_files(folder: Path, suffixes: Collection[str]) -> list[PurePosixPath]:
    """List the files of some kinds below a folder, at any depth, in natural order.

    Paths are relative to it; what operating systems leave behind and what is hidden is left out.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name for name in names if name[name.rfind(".") :].lower() in suffixes]
    paths = (PurePosixPath(path) for path in sorted(found, key=natural_key))
    return [path for path in paths if not is_clutter(path)]


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Make a sort key that counts: ``Image 2`` before ``Image 10``."""
    parts = (part for part in _DIGITS.split(text.casefold()) if part)
    key = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
    return (*key, (2, 0, text))  # names that differ by case or leading zeros alone


def last_integer(text: str) -> int | None:
    """Read the last whole number in a name: 12 in ``AMD (3) Image (12)``."""
    numbers = _DIGITS.findall(text)
    return int(numbers[-1]) if numbers else None


def scan_order(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Sort the B-scans of a volume by the last number in their names, never as text."""

    def key(path: PurePosixPath) -> tuple[int, tuple[tuple[int, int, str], ...]]:
        number = last_integer(path.stem)
        return (-1 if number is None else number, natural_key(str(path)))

    return sorted(paths, key=key)


def squeeze(text: str) -> str:
    """Reduce a name to what readers compare: lower-case letters and digits."""
    return re.sub(r"[\W_]+", "", text).casefold()


def safe_stem(text: str) -> str:
    """Make a file name's stem of letters, digits, ``-``, ``_`` and ``.`` alone."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.") or "image"


def unique_names(names: Sequence[str]) -> list[str]:
    """Number names that recur, in their order; case does not tell names apart."""
    taken: set[str] = set()
    last: dict[str, int] = {}
    result = []
    for name in names:
        chosen = name
        while chosen.casefold() in taken:
            last[name] = last.get(name, 1) + 1
            chosen = f"{name}_{last[name]}"
        taken.add(chosen.casefold())
        result.append(chosen)
    return result


def by_key(
    paths: Iterable[PurePosixPath], key: Callable[[PurePosixPath], str], what: str = "images"
) -> dict[str, PurePosixPath]:
    """Find files by what a table calls them; two that are called the same are an error."""
    found: dict[str, PurePosixPath] = {}
    for path in paths:
        first = found.setdefault(key(path), path)
        if first is not path:
            raise InputError(
                f"Two {what} are named {path.name}",
                got=f"{first} and {path}",
                expected="each once",
                remedy="give one copy of the download, without a split made of it",
            )
    return found


def find_file(
    folder: Path, files: Sequence[PurePosixPath], name: str, remedy: str
) -> PurePosixPath:
    """Find a file by its name at any depth, whatever its case.

    Raises:
        InputError: If it is not there, or several times with different content.
    """
    found = [path for path in files if path.name.casefold() == name.casefold()]
    if not found:
        got = shorten([str(path) for path in files]) or "no file of this kind"
        raise InputError(f"There is no {name} in {folder}", got=got, expected=name, remedy=remedy)
    if len({(folder / path).read_bytes() for path in found}) > 1:
        raise InputError(
            f"There are several different files {name} in {folder}",
            got=shorten([str(path) for path in found]),
            expected="one",
            remedy="give the folder or archive of one download",
        )
    return found[0]


def tolerate(problem: str, bad: Sequence[str], total: int, remedy: str) -> list[str]:
    """Turn a few unusable rows or files into a note, and many into an error; no note for none.

    Raises:
        InputError: If more than :data:`TOLERATED` of them are.
    """
    if not bad:
        return []
    told, some = f"{len(bad)} of {total} {problem}", shorten(list(bad), 3)
    if len(bad) > TOLERATED * total:
        raise InputError(told, got=some, expected="none, or a few", remedy=remedy)
    return [f"{told}; left out: {some}."]
