"""Finding things in an unpacked download: files at any depth, numbers in names, an order, a count.

Each data set's own file says what its names mean; what they have in common is here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from linprobe.prepare.archives import is_clutter
from linprobe.prepare.spec import BScan, BScanChoice
from retfiner.common.errors import InputError, shorten

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""How the name of an ordinary image file ends, in lower case."""

TOLERATED = 0.05
"""Share of a table's rows or of a folder's files that may be unusable; more is a wrong download."""

_DIGITS = re.compile(r"(\d+)")


def list_files(folder: Path, suffixes: Collection[str]) -> list[PurePosixPath]:
    """List the files of some kinds at any depth, in natural order.

    Returns:
        Paths relative to ``folder``; what operating systems leave behind is left out.
    """
    found = []
    for place, _, names in os.walk(folder):
        below = Path(place).relative_to(folder).as_posix()
        if is_clutter(PurePosixPath(below, "any")):
            continue
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name for name in names if _ending(name) in suffixes]
    paths = [PurePosixPath(path) for path in sorted(found, key=natural_key)]
    return [path for path in paths if not is_clutter(path)]


def _ending(name: str) -> str:
    return name[name.rfind(".") :].lower()


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


def chosen_scans(choice: BScanChoice, count: int, volume: str) -> list[int]:
    """Say which B-scans of a volume are wanted.

    Returns:
        Indices from 0; the central one is ``count // 2``.

    Raises:
        InputError: If the volume has no B-scan at the index.
    """
    if choice == "all":
        return list(range(count))
    index = count // 2 if choice == "central" else int(choice)
    if not 0 <= index < count:
        raise InputError(
            f"{volume} has no B-scan {index}",
            got=f"{count} B-scans",
            expected=f"an index from 0 to {count - 1}" if count else "at least one B-scan",
            remedy="give a smaller --bscan, or central",
        )
    return [index]


def find_file(
    folder: Path, files: Sequence[PurePosixPath], name: str, remedy: str
) -> PurePosixPath:
    """Find a file by its name at any depth, whatever its case.

    Raises:
        InputError: If it is not there, or several times with different content.
    """
    found = [path for path in files if path.name.casefold() == name.casefold()]
    if not found:
        raise InputError(
            f"There is no {name} in {folder}",
            got=shorten([str(path) for path in files]) or "no file of this kind",
            expected=name,
            remedy=remedy,
        )
    contents = {(folder / path).read_bytes() for path in found}
    if len(contents) > 1:
        raise InputError(
            f"There are several different files {name} in {folder}",
            got=shorten([str(path) for path in found]),
            expected="one",
            remedy="give the folder or archive of one download",
        )
    return found[0]


def require_classes(
    labels: Collection[str], classes: Sequence[str], folder: Path, layout: str
) -> None:
    """Check that a download has something of each class.

    Raises:
        InputError: If a class is absent.
    """
    missing = [name for name in classes if name not in labels]
    if missing:
        raise InputError(
            f"Nothing of {' and '.join(missing)} was found in {folder}",
            got=", ".join(sorted(set(labels))) or "no image of this data set",
            expected=layout,
            remedy="give the whole download; of several archives, all: --source <one> <another>",
        )


def tolerate(problem: str, bad: Sequence[str], total: int, remedy: str) -> list[str]:
    """Turn a few unusable rows or files into a note, and many into an error.

    Returns:
        A note, or nothing if none is bad.

    Raises:
        InputError: If more than :data:`TOLERATED` of them are.
    """
    if not bad:
        return []
    if len(bad) > TOLERATED * total:
        raise InputError(
            f"{len(bad)} of {total} {problem}",
            got=shorten(list(bad), 3),
            expected="none, or a few",
            remedy=remedy,
        )
    return [f"{len(bad)} of {total} {problem}; left out: {shorten(list(bad), 3)}."]


def compare_counts(
    found: Mapping[str, int], published: Mapping[str, int], of_what: str
) -> list[str]:
    """Say where a download has another number of something than was published."""
    if all(found.get(name, 0) == count for name, count in published.items()):
        return []
    here = ", ".join(f"{name} {found.get(name, 0)}" for name in published)
    there = ", ".join(f"{name} {count}" for name, count in published.items())
    return [f"Not the published number of {of_what}: {here}; published: {there}."]


def renamed(bscans: Sequence[BScan]) -> list[BScan]:
    """Make the names of B-scans unique, as :func:`unique_names` does."""
    names = unique_names([bscan.name for bscan in bscans])
    return [
        bscan if bscan.name == name else replace(bscan, name=name)
        for bscan, name in zip(bscans, names, strict=True)
    ]
