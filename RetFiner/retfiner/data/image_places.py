"""Where the images of a table lie: paths as other machines write them, found on this one.

A path is taken as it stands where there is such a file. Otherwise backslashes are read as slashes,
letters are looked for in the other case, and a folder of another machine that all paths begin with
is cut off, if the files then lie below the folder of the table. Whatever was done is said.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from retfiner.common.errors import InputError
from retfiner.vision.images import ImageAddress

TRIED = 8
"""Paths by which it is found out how much of them is a folder of another machine."""


@dataclass
class ImagePlaces:
    """Finds the images of a table below ``root``."""

    root: Path
    foreign: str = ""
    """What paths begin with that is no folder here; its rest lies below ``root``."""
    cut: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    example: str = ""
    _files: dict[str, bool] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)
    _folders: dict[Path, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, names: Iterable[str]) -> ImagePlaces:
        """Look at the paths of a table, and find out what of them is a folder of elsewhere."""
        places = cls(root)
        distant = [name for name in dict.fromkeys(names) if _is_absolute(name)]
        distant = [name for name in distant if not _is_there(Path(name).expanduser())]
        if distant:
            parts = [_parts(name) for name in distant]
            common = _common(parts)
            places.foreign = _before(distant[0], common)
            step = max(1, len(parts) // TRIED)
            for cut in range(1, common + 1):
                tried = ["/".join(p[cut:]) for p in parts[::step]]
                if any(places._is_image(places._look_up(rest)) for rest in tried):
                    places.cut = cut
                    places.foreign = _before(distant[0], cut)
                    break
            places.counts.clear()
        return places

    def find(self, name: str) -> str:
        """Return a path, with the place in the file it may name, as it is found here."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def _find(self, name: str) -> str:
        text = name.removeprefix("file://")
        file = text.partition("#")[0]
        if file not in self._files:
            self._files[file] = _is_there(self.root / file, Path.is_file)
        if self._files[file] or _is_there(self.root / text) or not text:
            return text
        if text.startswith("~"):
            text = str(Path(text).expanduser())
        if _is_absolute(text):
            if self.cut is None:
                return text
            text = "/".join(_parts(text)[self.cut :])
            self.counts["foreign"] += 1
        return self._look_up(text)

    def _look_up(self, text: str) -> str:
        if self._is_image(text):
            return text
        slashed = text.replace("\\", "/")
        found = self._in_other_case(slashed)
        if found is None:
            return slashed if "\\" in text and not _is_absolute(text) else text
        if found != slashed:
            self.counts["case"] += 1
            self.example = self.example or found
        elif slashed != text:
            self.counts["backslash"] += 1
        return found

    def _is_image(self, text: str) -> bool:
        try:
            return _is_there(ImageAddress.parse(self.root / text).path)
        except InputError:  # of the place in the file, which is there: it is said of its row
            return True

    def _in_other_case(self, text: str) -> str | None:
        file, mark, place = text.partition("#")
        folder, found = self.root, []
        for part in PurePosixPath(file).parts:
            if part in ("..", "."):
                actual: str | None = part
            else:
                names = self._listing(folder)
                actual = part if part in names.values() else names.get(_folded(part))
            if actual is None:
                return None
            found.append(actual)
            folder = folder / actual
        return "/".join(found) + mark + place if found else None

    def _listing(self, folder: Path) -> dict[str, str]:
        """Return the names in a folder by their folded form, but for those that share it."""
        if folder not in self._folders:
            try:
                names = [path.name for path in folder.iterdir()]
            except (OSError, ValueError):
                names = []
            counts = Counter(map(_folded, names))
            self._folders[folder] = {_folded(n) if counts[_folded(n)] == 1 else n: n for n in names}
        return self._folders[folder]

    def notes(self) -> list[str]:
        """Say what was done to paths, each in a line."""
        told = []
        if self.counts["foreign"]:
            told.append(
                f"{self.counts['foreign']} paths begin with {self.foreign}, which is not here:"
                f" what follows is looked for in {self.root}"
            )
        if self.counts["case"]:
            told.append(
                f"{self.counts['case']} paths are written in another case than their files:"
                f" {self.example} is there"
            )
        if self.counts["backslash"]:
            told.append(f"{self.counts['backslash']} paths are read with / in place of \\")
        return told

    def advice(self, names: Sequence[str]) -> str:
        """Say, for an error, what paths of another machine have in common and how to cut it."""
        if not self.foreign or self.cut is not None:
            return ""
        rest = "/".join(_parts(names[0])[len(_parts(self.foreign)) :]) if names else "..."
        return (
            f"the paths are of another machine and begin with {self.foreign}: --image_root names"
            f" the folder here that holds what follows ({rest[:80]})"
        )


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
