"""Where the images of a table lie: paths as other machines write them, found on this one.

A path is taken as it stands where there is such a file. Otherwise backslashes are read as slashes
and %20 as a blank, letters are looked for in the other case, a suffix that is left out is added,
and folders of another machine are cut off, if the files then lie below the folder of the table.
Whatever was done is said.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from retfiner.common.errors import InputError, shorten
from retfiner.common.patient_names import INVISIBLE
from retfiner.vision.images import READERS, ImageAddress

T = TypeVar("T")
TRIED = 8
"""Paths by which it is found out how much of them is a folder of another machine."""


class _Folder(NamedTuple):
    """The names in a folder, and those that are one's alone in another case, or without suffix."""

    names: frozenset[str]
    folded: dict[str, str]
    stems: dict[str, str]

    @classmethod
    def of(cls, path: Path) -> _Folder:
        try:
            names = [entry.name for entry in path.iterdir()]
        except (OSError, ValueError):
            names = []
        stems = [(name, _stem(_folded(name))) for name in names]
        return cls(
            frozenset(names),
            _unambiguous((_folded(name), name) for name in names),
            _unambiguous((stem, name) for name, stem in stems if stem is not None),
        )

    def find(self, name: str) -> tuple[str, str] | None:
        """Find a name, and how it differs; None where there is no such name, or there are two."""
        folded = _folded(name)
        if name in self.names:
            return name, ""
        if folded in self.folded:
            return self.folded[folded], "case"
        if _stem(folded) is None and folded in self.stems:
            return self.stems[folded], "suffix"
        return None


@dataclass
class ImagePlaces:
    """Finds the images of a table below ``root``."""

    root: Path
    foreign: str = ""
    """What paths begin with that is no folder here; its rest lies below ``root``."""
    cut: int | None = None
    is_relative: bool = False
    """Whether relative paths are cut, too."""
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    _files: dict[str, bool] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)
    _folders: dict[Path, _Folder] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, names: Iterable[str]) -> ImagePlaces:
        """Look at the paths of a table, and find out what of them is a folder of elsewhere."""
        places = cls(root)
        distinct = [name for name in dict.fromkeys(names) if name and "://" not in name]
        distant = [name for name in distinct if _is_absolute(name)]
        distant = [name for name in distant if not _is_there(Path(name).expanduser())]
        if distant:
            common = _common([_parts(name) for name in distant])
            places.foreign = _before(distant[0], common) if common else ""
        elif distinct and not any(places._is_found(name) for name in _some(distinct)):
            distant, places.is_relative = distinct, True
        places._cut(distant)
        places.counts.clear()
        places.examples.clear()
        return places

    def _cut(self, names: Sequence[str]) -> None:
        """Find out how many folders have to be taken off so that there are such files."""
        parts = [_parts(name) for name in names]
        common = _common(parts) if parts else 0
        depth = min((len(p) - 1 for p in parts), default=-1)
        for cut in range(depth + 1):
            if cut > common and len({tuple(p[cut:]) for p in parts}) < len(parts):
                return  # what is cut tells paths apart
            if any(self._is_found("/".join(p[cut:])) for p in _some(parts)):
                self.cut = cut
                self.foreign = shorten(sorted({_before(name, cut) for name in names}), 3)
                return

    def _is_found(self, name: str) -> bool:
        return self._is_image(self._look_up(name))

    def find(self, name: str) -> str:
        """Return a path, with the place in the file it may name, as it is found here."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def _find(self, name: str) -> str:
        file = name.partition("#")[0]
        if file not in self._files:
            self._files[file] = _is_there(self.root / file, Path.is_file)
        if self._files[file] or _is_there(self.root / name) or not name:
            return name
        text = str(Path(name).expanduser()) if name.startswith("~") else name
        if not _is_absolute(text):
            found = self._look_up(text)
            if not self.is_relative or self._is_image(found):
                return found
        if self.cut is None:
            return text
        self.counts["foreign"] += 1
        return self._look_up("/".join(_parts(text)[self.cut :]))

    def _look_up(self, text: str) -> str:
        if self._is_image(text):
            return text
        slashed = text.replace("\\", "/")
        for candidate in dict.fromkeys((slashed, unquote(slashed))):
            found = self._in_other_form(candidate)
            if found is not None:
                place, way = found
                if not way and candidate != text:
                    way = "backslash" if candidate == slashed else "encoded"
                self.counts[way] += 1
                self.examples.setdefault(way, place)
                return place
        return slashed if "\\" in text and not _is_absolute(text) else text

    def _is_image(self, text: str) -> bool:
        try:
            return _is_there(ImageAddress.parse(self.root / text).path)
        except InputError:  # of the place in the file, which is there: it is said of its row
            return True

    def _in_other_form(self, text: str) -> tuple[str, str] | None:
        """Find a path part by part; say how it differs from what is there."""
        file, mark, place = text.partition("#")
        folder, found, way = self.root, [], ""
        for part in PurePosixPath(file).parts:
            actual: tuple[str, str] | None = (part, "")
            if part not in ("..", "."):
                if folder not in self._folders:
                    self._folders[folder] = _Folder.of(folder)
                actual = self._folders[folder].find(part)
            if actual is None:
                return None
            found.append(actual[0])
            way = actual[1] or way
            folder = folder / actual[0]
        return ("/".join(found) + mark + place, way) if found else None

    def notes(self) -> list[str]:
        """Say what was done to paths, each in a line."""
        cut = f"{self.foreign}, which is not here: what follows is looked for in {self.root}"
        said = {
            "foreign": f"begin with {cut}",
            "case": "are written in another case or form than their files: {} is there",
            "suffix": "lack the suffix of their files: {} is there",
            "encoded": "are written as in an address: {} is there",
            "backslash": "are read with / in place of \\",
        }
        return [
            f"{self.counts[way]} paths {text.replace('{}', self.examples.get(way, ''))}"
            for way, text in said.items()
            if self.counts[way]
        ]

    def advice(self, names: Sequence[str]) -> str:
        """Say, for an error, what paths of another machine have in common and how to cut it."""
        if not self.foreign or self.cut is not None:
            return ""
        rest = "/".join(_parts(names[0])[len(_parts(self.foreign)) :]) if names else "..."
        return (
            f"the paths are of another machine and begin with {self.foreign}: --image_root names"
            f" the folder here that holds what follows ({rest[:80]})"
        )


def tidy_path(cell: str) -> str:
    """Take off a cell what no path has: blanks and quotes around it, invisible signs, file://."""
    text = INVISIBLE.sub("", cell).strip().strip("\"'").strip()
    if text.startswith("file://"):
        text = re.sub(r"^/(?=[A-Za-z]:)", "", unquote(text.removeprefix("file://")))
    return text


def _stem(folded: str) -> str | None:
    """Return a name without the suffix of an image; None where it has none."""
    suffix = PurePosixPath(folded).suffix
    return folded.removesuffix(suffix) if suffix in READERS else None


def _unambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map keys to values, without those that several values have."""
    listed = list(pairs)
    counts = Counter(key for key, _ in listed)
    return {key: value for key, value in listed if counts[key] == 1}


def _some(items: Sequence[T]) -> Sequence[T]:
    return items[:: max(1, len(items) // TRIED)]


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\\/]+", name) if part]


def _common(paths: Sequence[list[str]]) -> int:
    """Count the folders with which all paths begin."""
    folders = [parts[:-1] for parts in paths]
    first, last = min(folders), max(folders)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return len(list(same))


def _before(name: str, count: int) -> str:
    """Return the first parts of a path as they are written."""
    ends = [found.end() for found in re.finditer(r"[\\/]*[^\\/]+", name)]
    return name[: ends[count - 1]] if 0 < count <= len(ends) else name[:1]


def _is_absolute(name: str) -> bool:
    return PureWindowsPath(name).is_absolute() or name.startswith(("/", "\\\\", "~"))


def _is_there(path: Path, found: Callable[[Path], bool] = Path.exists) -> bool:
    try:
        return found(path)
    except (OSError, ValueError):  # a name longer than any file's, or with a NUL in it
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
