"""Tables as people export them: CSV, Excel or Parquet, each cell a text with its row's number.

A CSV's encoding and separator are found, and its header looked for below a title. What had to be
found out is said in a note; what can be read in two ways is an error that shows both. pandas would
line fields up by itself, which shifts columns where a comma is not quoted, and knows no row
numbers: CSVs are read row by row.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import itertools
import math
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retfiner.common.errors import InputError, shorten
from retfiner.common.progress import progress
from retfiner.data.encoding import find_encoding, require_encoding
from retfiner.vision.images import READERS

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
FIRST_LINES = 12
"""Among so many, the header is looked for: exports write titles above it."""
HEAD = 1 << 16
MAX_XLSX_BYTES = 1 << 30
"""Sheets and texts of a workbook are unpacked into memory; more is no table, but a bomb."""
LONGEST_CELL = 2**31 - 1

INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0e-\\x1f\\x7f\\xad\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2064\\ufeff]"
)
"""Signs that take no room and mean nothing in a name: zero-width spaces, byte order marks, NUL."""

_FORMULA = re.compile(r'="(.*)"', re.DOTALL)
"""How exports keep Excel from taking 0001 for a number: ="0001"."""

Line = tuple[int, list[str]]
"""A row's number, as a spreadsheet counts, and its cells."""

_SUFFIXES = "|".join(re.escape(suffix) for suffix in READERS)
_IMAGE = re.compile(rf"[^\n]{{1,300}}(?:{_SUFFIXES})(?:#\w+)*", re.IGNORECASE)
_OTHER_FILES = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old kind (.xls), or one with a password"),
    (b"\x1f\x8b", "a file compressed by gzip"),
    (b"ARROW1", "a Feather file"),
    (b"SQLite format 3", "an SQLite data base"),
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a picture"),
    (b"<!", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"[{", "JSON"),
    (b'{"', "JSON"),
)


class Table(NamedTuple):
    """The wanted columns of a table, by the names that were asked for.

    The header is row 1, unless a title stands above it, and blank lines count, as in a spreadsheet.
    ``broken`` says by row number why a row's cells cannot be told apart; ``notes`` what had to be
    found out to read the file.
    """

    rows: list[int]
    cells: dict[str, list[str]]
    broken: dict[int, str]
    notes: list[str]


@dataclass
class _Opened:
    """The lines of a file from its header on, and where the wanted columns are."""

    lines: Iterator[Line]
    header: list[str]
    places: dict[str, int]
    separator: str = ","
    notes: list[str] = field(default_factory=list)


_NAME_COLUMNS = "name yours with"


def read_table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), encoding: str | None = None
) -> Table:
    """Read columns of a table, and the ``optional`` ones that are there.

    Args:
        path: A CSV, or an Excel (.xlsx) or Parquet file; the content says which.
        columns: The columns that have to be there; case, blanks and invisible signs do not count
            where no other column's name differs by them alone.
        optional: Columns that may be.
        encoding: The CSV's encoding, as Python calls it; by default it is found out.

    Raises:
        InputError: If the file or a column is missing, or it cannot be read in one way alone.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", expected="a table of image-report pairs")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        with _explained(path, "a workbook"):
            return _collect(_open_workbook(path, columns, optional))
    if start.startswith(b"PAR1"):
        with _explained(path, "a Parquet file"):
            return _collect(_open_parquet(path, columns, optional))
    for mark, kind in _OTHER_FILES:
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(mark.lower()):
            raise InputError(f"{path} is no table", got=kind, expected="a CSV, .xlsx or .parquet",
                             remedy="save the table as CSV UTF-8")  # fmt: skip
    return _read_csv(path, columns, optional, encoding)


def read_table_or(
    remedy: str,
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    encoding: str | None = None,
) -> Table:
    """Read a table whose columns are named by other flags, if any, than those of pairs.

    Raises:
        InputError: As :func:`read_table`; of a column that is missing with this remedy.
    """
    try:
        return read_table(path, columns, optional, encoding)
    except InputError as error:
        said, is_lacking, _ = str(error).partition(f"\n  remedy:   {_NAME_COLUMNS}")
        if not is_lacking:
            raise
        raise InputError(said, remedy=remedy) from None


@contextlib.contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Turn what libraries raise for a damaged file, of whatever kind, into one error of ours."""
    try:
        yield
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is {kind}, and reading it needs a package",
            got=f"no package {error.name}",
            remedy=f"pip install {error.name}, or save the table as CSV UTF-8",
        ) from error
    except Exception as error:
        got = " ".join((str(error) or type(error).__name__).split())[:200]
        raise InputError(
            f"{path} is {kind} that cannot be read", got=got, remedy="save the table as CSV UTF-8"
        ) from error


# ---- columns


def plain_name(name: str) -> str:
    """Reduce a column's name to what people mean: no case, blanks, dashes, invisible signs."""
    return re.sub(
        r"[\s_.-]+", "", INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
    ).casefold()


def visible(name: str) -> str:
    """Write a name so that every sign of it can be seen."""
    return "".join(s if s.isprintable() else ascii(s)[1:-1] for s in name.strip(" \t"))


def _find_columns(
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
                got=shorten([repr(visible(header[i])) for i in found]),
                expected=f"one column {column}",
                remedy="rename or remove the other one",
            )
        if found:
            places[column] = found[0]
    return places


def _find_header(
    path: Path, lines: Sequence[Line], columns: Sequence[str], optional: Sequence[str]
) -> tuple[int, dict[str, int]] | None:
    """Find the first line that has all columns, and where in it they are."""
    for place, (_, fields) in enumerate(lines):
        known = {plain_name(name) for name in fields}
        if all(plain_name(column) in known for column in columns):
            return place, _find_columns(path, fields, columns, optional)
    return None


def _header_notes(header: Sequence[str], number: int, places: dict[str, int]) -> list[str]:
    renamed = [
        f"{visible(header[place])!r} as {column}"
        for column, place in places.items()
        if INVISIBLE.sub("", header[place]).strip() != column
    ]
    notes = [f"columns: {', '.join(renamed)}"] if renamed else []
    return notes + ([f"the header is in row {number}"] if number > 1 else [])


def _lacks_columns(
    path: Path, first: Sequence[str], columns: Sequence[str], parted: str | None
) -> InputError:
    """Say what stands in the first line, unless it may be a row: reports and patients stay here."""
    known = {plain_name(name) for name in first}
    missing = [column for column in columns if plain_name(column) not in known]
    by = "" if parted is None or len(first) < 2 else f" parted by {parted}"
    remedy = (
        f"{_NAME_COLUMNS} --image_column, --report_column, --patient_column, --slice_column,"
        " --group_column (--patient_column none if patients are not known)"
    )
    if not any(name.strip() for name in first):
        got = "an empty file"
    elif any(_IMAGE.fullmatch(name.strip()) for name in first):
        got = f"{len(first)} fields{by}; the first line is a pair and no header"
        sign = next((s for s, name in SEPARATORS.items() if name == parted), ",")
        remedy = f"write the columns' names above it: {sign.join(columns)}"
    elif len(missing) == len(columns):
        many = f"{len(first)} field{'s' if len(first) > 1 else ''}{by}"
        got = f"{many}, none by such a name (not shown: it may be a patient's row)"
    else:
        got = f"columns {shorten([visible(name[:40]) for name in first], 12)}{by}"
    return InputError(
        f"{path} lacks a column", got=got, expected=f"a column {', '.join(missing)}", remedy=remedy
    )


# ---- CSV


class MalformedCSVError(InputError):
    """A CSV whose cells cannot be told apart."""


def _read_csv(
    path: Path, columns: Sequence[str], optional: Sequence[str], given: str | None
) -> Table:
    encoding = find_encoding(path) if given is None else require_encoding(given)
    try:
        try:
            return _collect(_open_csv(path, columns, optional, encoding, None))
        except MalformedCSVError:
            if not _has_escaped_quotes(path, encoding):
                raise
            return _collect(_open_csv(path, columns, optional, encoding, "\\"))
    except UnicodeError as error:
        raise InputError(
            f"{path} is not {encoding}",
            got="bytes that mean nothing in it",
            remedy="--table_encoding names the right one; or save it as CSV UTF-8",
        ) from error


def _has_escaped_quotes(path: Path, encoding: str) -> bool:
    with path.open(encoding=encoding, newline="\n") as file:
        return any('\\"' in line for line in file)


def _open_csv(
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str],
    encoding: str,
    escape: str | None,
) -> _Opened:
    """Find separator and header; ``escape`` is what stands before a quote within quotes, if so."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(HEAD)
    # Where lines end with \n, a lone \r is what an editor left inside a report.
    line_end = "\n" if "\n" in head else "\r"
    first = head.splitlines()[:1]
    stated = re.fullmatch(r'\ufeff*"?sep=(.)"?', first[0]) if first else None
    candidates = [stated[1]] if stated else list(SEPARATORS)
    skipped = 1 if stated else 0
    best: tuple[int, str, int, list[str], dict[str, int]] | None = None
    firsts = {}
    for separator in candidates:
        lines = list(enumerate(_first_records(head, line_end, skipped, separator, escape), 1))
        firsts[separator] = lines[0][1] if lines else []
        found = _find_header(path, lines, columns, optional)
        if found is not None:
            place, places = found
            header = lines[place][1]
            if best is None or len(header) > best[0]:
                best = (len(header), separator, place, header, places)
    if best is None:
        separator = max(firsts, key=lambda sign: len(firsts[sign]))
        raise _lacks_columns(path, firsts[separator], columns, SEPARATORS.get(separator))
    _, separator, place, header, places = best
    records = _records(path, encoding, line_end, skipped, separator, escape)
    notes = [] if encoding in ("utf-8", "utf-8-sig") else [f"encoding {encoding}"]
    notes += [] if separator == "," else [f"parted by {SEPARATORS.get(separator, separator)}"]
    if escape:
        notes.append('quotes within reports are written \\"')
    notes += _header_notes(header, place + 1, places)
    return _Opened(itertools.islice(records, place + 1, None), header, places, separator, notes)


def _first_records(
    head: str, line_end: str, skipped: int, separator: str, escape: str | None
) -> list[list[str]]:
    lines = head.split(line_end)
    if len(head) == HEAD and len(lines) > 1:
        lines.pop()  # cut in its middle
    lines = [line + "\n" for line in lines[skipped:]]
    reader = csv.reader(_without_marks(lines), delimiter=separator, escapechar=escape)
    with contextlib.suppress(csv.Error):  # of a later line: it is said when that is read
        return list(itertools.islice(reader, FIRST_LINES))
    return []


def _without_marks(lines: Iterable[str]) -> Iterator[str]:
    """Take byte order marks off the first line, and lone carriage returns out of all."""
    for number, line in enumerate(lines):
        text = line.lstrip("\ufeff") if number == 0 else line
        if "\r" in text:
            text = text.removesuffix("\n").removesuffix("\r").replace("\r", " ") + "\n"
        yield text


def _records(
    path: Path, encoding: str, line_end: str, skipped: int, separator: str, escape: str | None
) -> Iterator[Line]:
    with (
        path.open(encoding=encoding, newline=line_end) as file,
        progress(f"reading {path.name}", path.stat().st_size, "B") as bar,
    ):
        reader = csv.reader(
            _without_marks(itertools.islice(file, skipped, None)),
            delimiter=separator, escapechar=escape, doublequote=escape is None, strict=True,
        )  # fmt: skip
        done = 0
        for number in itertools.count(1):
            line = reader.line_num + 1 + skipped
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise _malformed(path, error, line) from error
            if fields is None:
                return
            yield number, fields
            if number % 4096 == 0:
                at = file.buffer.tell()  # type: ignore[attr-defined]
                bar.update(at - done)
                done = at


def _malformed(path: Path, error: csv.Error, line: int) -> MalformedCSVError:
    never = "unexpected end of data" in str(error)
    return MalformedCSVError(
        f"{path} is not a well-formed CSV",
        got=f"{'a quotation that never ends' if never else error}, in the row that begins at line"
        f" {line}",
        remedy='put reports that hold a comma between double quotes: "..."; a double quote'
        ' inside a report is written twice: ""',
    )


# ---- Excel and Parquet


def _open_workbook(path: Path, columns: Sequence[str], optional: Sequence[str]) -> _Opened:
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
    first: list[str] = []
    for sheet in book.worksheets:
        lines = list(itertools.islice(_sheet_lines(sheet), FIRST_LINES))
        first = first or next((fields for _, fields in lines if any(fields)), [])
        header = _find_header(path, lines, columns, optional)
        if header is not None:
            found.append((sheet, lines[header[0]], header))
    if not found:
        raise _lacks_columns(path, first, columns, None)
    if len(found) > 1:
        raise InputError(
            f"{path} has several sheets with these columns",
            got=shorten([sheet.title for sheet, *_ in found]),
            expected="one",
            remedy="save the one that is meant in a file of its own",
        )
    sheet, (number, names_in_it), (place, places) = found[0]
    notes = [f"Excel, sheet {sheet.title!r}"] if len(book.worksheets) > 1 else ["an Excel file"]
    below = itertools.islice(_sheet_lines(sheet, path.name), place + 1, None)
    return _Opened(
        below, names_in_it, places, notes=notes + _header_notes(names_in_it, number, places)
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


def _open_parquet(path: Path, columns: Sequence[str], optional: Sequence[str]) -> _Opened:
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    header = file.schema_arrow.names
    places = _find_columns(path, header, columns, optional)
    if not all(column in places for column in columns):
        raise _lacks_columns(path, header, columns, None)
    for column, place in places.items():
        kind = file.schema_arrow.field(place).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise InputError(
                f"{path} holds no text in its column {column}",
                got=f"{str(kind)[:60]}: pictures themselves?",
                expected="paths, texts or numbers",
                remedy="write the pictures to files, and their paths into the column",
            )
    wanted = [header[place] for place in places.values()]
    notes = ["Parquet", *_header_notes(header, 1, places)]

    def lines() -> Iterator[Line]:
        number = 1
        with progress(f"reading {path.name}", file.metadata.num_rows, "row") as bar:
            for batch in file.iter_batches(16384, columns=wanted):
                for values in zip(*(batch[name].to_pylist() for name in wanted), strict=True):
                    number += 1
                    yield number, [value_text(value) for value in values]
                bar.update(batch.num_rows)

    return _Opened(lines(), wanted, dict(zip(places, range(len(wanted)), strict=True)), notes=notes)


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


# ---- rows


def _collect(opened: _Opened) -> Table:
    table = Table([], {column: [] for column in opened.places}, {}, opened.notes)
    named = [bool(plain_name(name)) for name in opened.header]
    last = max((place for place, is_named in enumerate(named) if is_named), default=-1)
    for number, fields in opened.lines:
        if not any(fields) or (len(fields) == 1 and not fields[0].strip()):
            continue  # a blank line
        reason = _why_broken(fields, len(named), last, opened.separator)
        if reason is not None:
            table.broken[number] = reason
        table.rows.append(number)
        for column, place in opened.places.items():
            cell = fields[place] if place < len(fields) else ""
            formula = _FORMULA.fullmatch(cell) if cell.startswith('="') else None
            table.cells[column].append(formula[1].replace('""', '"') if formula else cell)
    return table


def _why_broken(fields: list[str], width: int, last: int, separator: str) -> str | None:
    advice = f'(a report with a "{separator}" goes between double quotes: "...")'
    if len(fields) > width:
        return f"{len(fields)} fields where the header has {width} {advice}"
    if any(cell.strip() for cell in fields[last + 1 :]):
        return f"a cell under no column's name: {last + 1} names in the header {advice}"
    for cell in fields:
        if "\n" in cell and _holds_rows(cell, fields, separator):
            return "a quotation that spans lines which look like rows: a lone double quote?"
    return None


def _holds_rows(cell: str, fields: list[str], separator: str) -> bool:
    """Say whether a cell's later lines are rows: with an image's name, or a cell like one here."""
    shapes = {_shape(other) for other in fields if other is not cell} - {None}
    for line in cell.split("\n")[1:]:
        parts = [part.strip(' "\r') for part in line.split(separator)]
        if len(parts) > 1 and any(_IMAGE.fullmatch(p) or _shape(p) in shapes for p in parts):
            return True
    return False


def _shape(cell: str) -> str | None:
    """Return what names of a kind share: letters, and where numbers stand; None for other text."""
    is_name = re.fullmatch(r"(?=.*\d)(?=.*[^\W\d])\S{3,200}", cell.strip())
    return re.sub(r"\d+", "0", cell.strip()) if is_name else None
