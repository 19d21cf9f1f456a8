"""What a published set of pairs is, and what their readers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from retfiner.common.errors import InputError, shorten
from retfiner.data.pair_table import KEPT_COLUMNS
from retfiner.data.table_columns import plain_name
from retfiner.data.table_file import read_table_or, require_whole_rows
from retfiner.vision.images import READERS

if TYPE_CHECKING:
    import pandas as pd

Modality = Literal["oct", "fundus", "all"]
AS_PUBLISHED = "published text"


class Pair(NamedTuple):
    """A pair as a set publishes it; ``made_from`` says whether somebody wrote its report."""

    image: Path
    report: str
    patient: str
    modality: str
    licence: str
    made_from: str = AS_PUBLISHED


@dataclass(frozen=True)
class PublicSet:
    """A published set of pairs.

    Attributes:
        layout: What ``--source NAME PATH`` is given.
        licence: Of the whole; of each pair where the set says so.
        citation: What its authors ask to be cited.
        where: Where it is had.
        patients: What stands for the patient; empty where nothing does.
        read: Takes the path and a folder for images that do not lie in files of their own; gives
            the pairs, and notes on what was left out or had to be chosen.
    """

    layout: str
    licence: str
    citation: str
    where: str
    patients: str
    read: Callable[[Path, Path], tuple[list[Pair], list[str]]]


def as_table(pairs: Iterable[Pair]) -> pd.DataFrame:
    """Make the table of pairs that is then read, checked and split like any other."""
    import pandas as pd

    table = pd.DataFrame(pairs, columns=["image", "report", "patient_id", *KEPT_COLUMNS[1:]])
    table["image"] = [str(path.absolute()) for path in table["image"]]
    return table


def find_file(path: Path, name: str, notes: list[str]) -> Path:
    """Find a set's table: the path itself, or the file of that name anywhere below it.

    Raises:
        InputError: If there is none.
    """
    if path.is_file():
        return path
    found = sorted(p for p in path.rglob("*") if p.name.casefold() == name.casefold())
    if not found:
        there = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
        raise InputError(
            f"{path} lacks a table of the set",
            got=shorten(there, 6) or "no such folder",
            expected=f"{name} in it or below it",
            remedy="download the table as well, and give the folder that holds all of the set",
        )
    if len(found) > 1:
        notes.append(f"{len(found)} files are called {name}; read: {found[0].relative_to(path)}")
    return found[0]


def read_columns(path: Path, columns: list[str], optional: list[str]) -> dict[str, list[str]]:
    """Read columns of a set's table; empty cells and what pandas writes for them are empty.

    Raises:
        InputError: If a column is missing, or a row's cells cannot be told apart.
    """
    remedy = "give the set as published; a table of your own goes to --csv, with --image_column"
    table = read_table_or(remedy, path, columns, optional)
    require_whole_rows(table, path)
    return {
        name: ["" if plain_name(cell) in ("", "nan", "none", "null", "n/a") else cell.strip()
               for cell in cells]
        for name, cells in table.cells.items()
    }  # fmt: skip


def images_below(folder: Path) -> list[Path]:
    """List the images below a folder, in order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in READERS and p.is_file())


def modality_of(words: Iterable[str], default: str = "") -> str:
    """Tell the kind of image from names of folders, the last first: CFP, FFA, OCT."""
    for word in reversed(list(words)):
        for sign, modality in (("oct", "oct"), ("cfp", "fundus"), ("ffa", "angiography")):
            if sign in word.casefold():
                return modality
    return default
