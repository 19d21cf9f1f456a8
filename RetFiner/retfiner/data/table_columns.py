"""The header of a table: where it is, and which of its columns are the wanted ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retfiner.common.errors import InputError, shorten
from retfiner.common.patient_names import INVISIBLE
from retfiner.vision.images import READERS

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
FIRST_LINES = 40
"""Among so many, the header is looked for: exports write titles above it."""

NAME_COLUMNS = "name yours with"
"""How the remedy for a missing column of pairs begins."""

Line = tuple[int, list[str]]
"""A row's number, as a spreadsheet counts, and its cells."""

_SUFFIXES = "|".join(re.escape(suffix) for suffix in READERS)
_IMAGE = re.compile(rf"[^\n]{{1,300}}(?:{_SUFFIXES})(?:#\w+)*", re.IGNORECASE)


@dataclass
class Opened:
    """The lines of a file from its header on, and where the wanted columns are."""

    lines: Iterator[Line]
    header: list[str]
    places: dict[str, int]
    separator: str = ","
    notes: list[str] = field(default_factory=list)


def plain_name(name: str) -> str:
    """Reduce a column's name to what people mean: no case, blanks, dashes, invisible signs."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold() or name.strip()


def visible(name: str) -> str:
    """Write a name so that every sign of it can be seen."""
    return "".join(s if s.isprintable() else ascii(s)[1:-1] for s in name.strip(" \t"))


def is_image(cell: str) -> bool:
    """Say whether a cell reads like the name of an image."""
    return _IMAGE.fullmatch(cell.strip(' "')) is not None


def find_columns(
    path: Path, header: Sequence[str], columns: Sequence[str], optional: Sequence[str]
) -> dict[str, int]:
    """Find where columns are; those that are not are left out.

    Raises:
        InputError: If one is there twice.
    """
    names = [name.strip() for name in header]
    plain = [plain_name(name) for name in header]
    places = {}
    for column in (*columns, *optional):
        exact = [i for i, name in enumerate(names) if name == column]
        found = exact or [i for i, name in enumerate(plain) if name == plain_name(column)]
        if len(found) > 1:
            raise InputError(
                f"{path} has a column twice",
                got=shorten([f"'{visible(header[i])}'" for i in found]),
                expected=f"one column {column}",
                remedy="rename or remove the other one",
            )
        if found:
            places[column] = found[0]
    return places


def find_header(
    path: Path, lines: Sequence[Line], columns: Sequence[str], optional: Sequence[str]
) -> tuple[int, dict[str, int]] | None:
    """Find the first line that has all columns, and where in it they are."""
    for place, (_, fields) in enumerate(lines):
        known = {plain_name(name) for name in fields}
        if all(plain_name(column) in known for column in columns):
            return place, find_columns(path, fields, columns, optional)
    return None


def header_notes(header: Sequence[str], number: int, places: dict[str, int]) -> list[str]:
    """Say which columns are called otherwise, and where the header is if it is not first."""
    renamed = [
        f"'{visible(header[place])}' as {column}"
        for column, place in places.items()
        if INVISIBLE.sub("", header[place]).strip() != column
    ]
    notes = [f"columns: {', '.join(renamed)}"] if renamed else []
    return notes + ([f"the header is in row {number}"] if number > 1 else [])


def lacks_columns(
    path: Path, lines: Sequence[Line], columns: Sequence[str], separator: str | None = None
) -> InputError:
    """Say what stands in the first lines.

    Names of columns are shown where it is certain that they are none of a patient's row: where an
    image is named below them, or a wanted column among them.
    """
    rows = [fields for _, fields in lines if any(name.strip() for name in fields)]
    images = (
        (number, place)
        for number, fields in enumerate(rows)
        for place, cell in enumerate(fields)
        if is_image(cell)
    )
    number, place = next(images, (None, 0))
    first = rows[number - 1 if number else 0] if rows else []
    known = {plain_name(name) for name in first}
    missing = [column for column in columns if plain_name(column) not in known]
    by = "" if separator is None or len(first) < 2 else f" parted by {SEPARATORS[separator]}"
    named = "NAME"
    if number and place < len(first) and first[place].strip():
        named = f"'{visible(first[place])}'"
    remedy = (
        f"{NAME_COLUMNS} --image_column {named}, --report_column, --patient_column, --slice_column,"
        " --group_column (--patient_column none if patients are not known)"
    )
    held = [cell for fields in rows for cell in fields if _names_all(cell, columns)]
    if not rows:
        got = "an empty file"
    elif held:
        got = "all of them in one cell, which no separator parts"
        remedy = "save the table anew, as CSV UTF-8 with " + ", ".join(SEPARATORS.values())
    elif number == 0:
        got = f"{len(first)} fields{by}; the first line is a pair and no header"
        remedy = f"write the columns' names above it: {(separator or ',').join(columns)}"
    elif named == "NAME" and len(missing) == len(columns):
        many = f"{len(first)} field{'s' if len(first) > 1 else ''}{by}"
        got = f"{many}, none by such a name (not shown: it may be a patient's row)"
    else:
        got = f"columns {shorten([visible(name[:40]) for name in first], 12)}{by}"
    return InputError(
        f"{path} lacks a column", got=got, expected=f"a column {', '.join(missing)}", remedy=remedy
    )


def _names_all(cell: str, columns: Sequence[str]) -> bool:
    return len(columns) > 1 and all(column.casefold() in cell.casefold() for column in columns)
