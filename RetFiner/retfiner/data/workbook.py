"""Excel workbooks as lines of text: what a person sees in the one sheet that has the columns.

openpyxl reads cells row by row, in bounded memory, but then knows neither merged cells nor hidden
rows nor formulas that were never computed: these are looked for in the sheet's XML itself.
"""

from __future__ import annotations

import datetime
import io
import itertools
import math
import re
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError, shorten
from retfiner.common.progress import progress
from retfiner.data.table_columns import (
    FIRST_LINES,
    Line,
    Opened,
    find_header,
    header_notes,
    lacks_columns,
)

MAX_XLSX_BYTES = 1 << 30
"""Sheets and texts of a workbook are unpacked into memory; more is no table, but a bomb."""
BLOCK = 1 << 20

_HIDDEN_ROW = re.compile(rb'<(?:\w+:)?row [^>]*\bhidden="(?:1|true)"')
_MERGED = re.compile(rb'mergeCell [^>]*ref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')
_NOT_COMPUTED = re.compile(
    rb'<(?:\w+:)?c [^>]*r="([A-Z]+)(\d+)"[^>]*>\s*<(?:\w+:)?f(?: [^>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)'
    rb"\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)


@dataclass
class _Layout:
    """What cells alone do not say of some columns of a sheet; places count from 0, rows from 1.

    ``covered`` names, by row, the places that a cell further up is merged over, and that cell.
    """

    covered: dict[int, dict[int, tuple[int, int]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    hidden: int = 0
    not_computed: list[int] = field(default_factory=list)


def open_workbook(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Opened:
    """Find the sheet and the line of it that have the columns.

    Raises:
        InputError: If none has, or several that are shown have, or a formula has no value.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        size = sum(info.file_size for info in archive.infolist())
    if "xl/workbook.xml" not in names:
        kind = "an OpenDocument table" if "content.xml" in names else "a zip archive"
        raise InputError(f"{path} is no table", got=kind, expected="a CSV, .xlsx or .parquet",
                         remedy="save the table as CSV UTF-8")  # fmt: skip
    if size > MAX_XLSX_BYTES:
        raise InputError(f"{path} unpacks to far more than a table", got=f"{size:,} bytes",
                         remedy="save the table as CSV UTF-8")  # fmt: skip
    from openpyxl import load_workbook

    content = io.BytesIO(path.read_bytes())  # of a path, it would go by the suffix
    book = load_workbook(content, read_only=True, data_only=True)
    found: list[tuple[Any, Line, tuple[int, dict[str, int]]]] = []
    first: list[Line] = []
    for sheet in book.worksheets:
        lines = list(itertools.islice(_sheet_lines(sheet), FIRST_LINES))
        first = first if any(any(fields) for _, fields in first) else lines
        header = find_header(path, lines, columns, optional)
        if header is not None:
            found.append((sheet, lines[header[0]], header))
    if not found:
        raise lacks_columns(path, first, columns)
    found = [each for each in found if each[0].sheet_state == "visible"] or found
    if len(found) > 1:
        raise InputError(
            f"{path} has several sheets with these columns",
            got=shorten([sheet.title for sheet, *_ in found]),
            expected="one",
            remedy="save the one that is meant in a file of its own, or hide the others",
        )
    sheet, (number, names_in_it), (place, places) = found[0]
    layout = _layout_of(content, sheet, number, places.values())
    _require_computed(path, layout)
    notes = [f"Excel, sheet {sheet.title!r}"] if len(book.worksheets) > 1 else ["an Excel file"]
    notes += header_notes(names_in_it, number, places)
    if layout.covered:
        notes.append(f"merged cells hold for each of their rows ({len(layout.covered)} more)")
    if layout.hidden:
        notes.append(f"{layout.hidden} hidden rows are read as well")
    below = itertools.islice(_sheet_lines(sheet, path.name), place + 1, None)
    return Opened(_with_merged(below, layout), names_in_it, places, notes=notes)


def _require_computed(path: Path, layout: _Layout) -> None:
    rows = [str(row) for row in layout.not_computed]
    if rows:
        raise InputError(
            f"{path} has formulas without values",
            got=f"cells that were never computed, in rows {shorten(rows)}",
            expected="the values that Excel saves with them",
            remedy="open the file in Excel or LibreOffice and save it, or save it as CSV UTF-8",
        )


def _sheet_lines(sheet: Any, name: str | None = None) -> Iterator[Line]:
    total = sheet.max_row
    with progress(f"reading {name}", total, "row", shown=name is not None) as bar:
        for number, cells in enumerate(sheet.iter_rows(), 1):
            yield number, [_cell_text(cell) for cell in cells]
            bar.update(1)


def _cell_text(cell: Any) -> str:
    """Write a cell as it is shown where that may be an identifier: 7 under the format 0000."""
    text = value_text(cell.value)
    form = getattr(cell, "number_format", None)
    return text.zfill(len(form)) if form and len(form) > 1 and not form.strip("0") else text


def value_text(value: Any) -> str:
    """Write a value as text: whole numbers without decimals, days without the time of day."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ")
    return str(value)


# ---- what is in the sheet's XML alone


def _layout_of(content: io.BytesIO, sheet: Any, header: int, places: Collection[int]) -> _Layout:
    """Look for what openpyxl passes over, in the wanted columns below the header."""
    from openpyxl.utils import column_index_from_string

    layout = _Layout()
    with zipfile.ZipFile(content) as archive, archive.open(sheet._worksheet_path) as stream:
        for part in _rows_in(stream):
            layout.hidden += len(_HIDDEN_ROW.findall(part))
            for letters, row in _NOT_COMPUTED.findall(part):
                if column_index_from_string(letters.decode()) - 1 in places and int(row) > header:
                    layout.not_computed.append(int(row))
            for left, top, right, bottom in _MERGED.findall(part):
                first = column_index_from_string(left.decode()) - 1
                last = column_index_from_string(right.decode()) - 1
                for place in places:
                    if int(top) > header and first <= place <= last:
                        for row in range(int(top) + 1, min(int(bottom), sheet.max_row or 0) + 1):
                            layout.covered[row][place] = int(top), first
    return layout


def _rows_in(stream: Any) -> Iterator[bytes]:
    """Give XML in parts that end between rows."""
    rest = b""
    while block := stream.read(BLOCK):
        whole, mark, rest = (rest + block).rpartition(b"row>")  # </row>, or another prefix
        yield whole + mark
    yield rest


def _with_merged(lines: Iterator[Line], layout: _Layout) -> Iterator[Line]:
    """Write what stands in a merged cell into each row that it is merged over."""
    tops = {row for places in layout.covered.values() for row, _ in places.values()}
    kept: dict[int, list[str]] = {}
    for number, cells in lines:
        for place, (row, first) in layout.covered.get(number, {}).items():
            cells.extend([""] * (place + 1 - len(cells)))
            cells[place] = kept[row][first]
        if number in tops:
            kept[number] = cells
        yield number, cells
