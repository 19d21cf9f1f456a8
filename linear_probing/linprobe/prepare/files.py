"""Files of an unpacked download: at any depth, by content, by names that are safe."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""How the name of an ordinary image file ends, in lower case."""

TOLERATED = 0.05
"""Share of a table's rows or of a folder's files that may be unusable; more is a wrong download."""


def list_files(folder: Path, suffixes: Collection[str]) -> list[PurePosixPath]:
    """List the files of some kinds below a folder, at any depth, sorted.

    Paths are relative to it; what operating systems leave behind and what is hidden is left out.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        wanted = [n for n in names if n[n.rfind(".") :].lower() in suffixes and n[:2] != "._"]
        found += [PurePosixPath(Path(place, name).relative_to(folder)) for name in wanted]
    return sorted(found)


def identical_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Find groups of two or more files with the very same content; only equal sizes are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    by_hash: dict[str, list[Path]] = defaultdict(list)
    for path in (path for same in by_size.values() if len(same) > 1 for path in same):
        by_hash[file_sha256(path)].append(path)
    return [same for same in by_hash.values() if len(same) > 1]


def scan_order(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Sort the B-scans of a volume by the last number in their names, never as text."""

    def key(path: PurePosixPath) -> tuple[int, str]:
        numbers = re.findall(r"\d+", path.stem)
        return int(numbers[-1]) if numbers else -1, str(path)

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
    result = []
    for name in names:
        numbered = (f"{name}_{k}" for k in itertools.count(2))
        chosen = next(n for n in itertools.chain([name], numbered) if n.casefold() not in taken)
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
