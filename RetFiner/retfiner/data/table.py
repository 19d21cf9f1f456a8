"""Columns of a CSV, each cell with the row number that a spreadsheet shows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from retfiner.common.errors import InputError, shorten


class Table(NamedTuple):
    """The wanted columns of a CSV.

    The header is row 1 and blank lines count, as in a spreadsheet; ``broken`` says by row number
    why a row's fields cannot be told apart.
    """

    rows: list[int]
    cells: dict[str, list[str]]
    broken: dict[int, str]


def read_table(path: Path, columns: list[str], optional: Sequence[str] = ()) -> Table:
    """Read columns of a CSV in UTF-8 with a header, and the ``optional`` ones that are there.

    Raises:
        InputError: If the file or a column is missing, or the file is no well-formed CSV in UTF-8.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", expected="a CSV of image-report pairs")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            wanted = columns + [name for name in optional if name in header]
            _check_header(path, header, wanted)
            return _read_rows(reader, header, wanted)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8",
            got=f"byte {error.start} is {error.object[error.start : error.start + 1]!r}",
            remedy="save it as CSV UTF-8, for example: iconv -f latin1 -t utf-8 in.csv > out.csv",
        ) from error
    except csv.Error as error:
        raise InputError(
            f"{path} is not a well-formed CSV",
            got=f"{error}, at line {reader.line_num}",
            remedy='put reports that hold a comma between double quotes: "..."; a double quote'
            ' inside a report is written twice: ""',
        ) from error


def _check_header(path: Path, header: list[str], columns: list[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(
            f"{path} lacks a column",
            got=_told(header, columns),
            expected=f"a column {', '.join(missing)}, the columns parted by commas",
            remedy="name yours with --image_column, --report_column, --patient_column,"
            " --slice_column (--patient_column none if patients are not known)",
        )
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise InputError(f"{path} has a column twice", got=shorten(twice), expected="it once")


def _told(header: list[str], columns: list[str]) -> str:
    """Say what stands in the first line, unless it may be a row: reports and patients stay here."""
    if not header:
        return "an empty file"
    names = {name.strip() for field in header for name in re.split(r"[;\t]", field)}
    if not set(columns) & names:
        return f"{len(header)} fields, none by such a name (not shown: it may be a patient's row)"
    return f"columns {shorten([name[:40] for name in header], 12)}"


def _read_rows(reader: Iterable[list[str]], header: list[str], columns: list[str]) -> Table:
    """Read rows one by one: a table reader that lines fields up by itself would shift columns."""
    table = Table([], {column: [] for column in columns}, {})
    places = {column: header.index(column) for column in columns}
    for row, fields in enumerate(reader, 2):
        if len(fields) < 2 and not "".join(fields).strip():
            continue  # a blank line
        if any(field.strip() for field in fields[len(header) :]):
            table.broken[row] = (
                f"{len(fields)} fields where the header has {len(header)}"
                ' (a report with a comma goes between double quotes: "...")'
            )
        table.rows.append(row)
        for column, place in places.items():
            table.cells[column].append(fields[place] if place < len(fields) else "")
    return table
