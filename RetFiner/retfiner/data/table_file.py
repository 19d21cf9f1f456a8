"""Tables as people export them: CSV, Excel or Parquet, each cell a text with its row's number.

A CSV's encoding and separator are found, and its header looked for below a title. What had to be
found out is said in a note; what can be read in two ways is an error that shows both. pandas would
line fields up by itself, which shifts columns where a comma is not quoted, and knows no row
numbers: CSVs are read row by row.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retfiner.common.errors import InputError
from retfiner.common.patient_names import INVISIBLE
from retfiner.common.progress import progress
from retfiner.data.encoding import find_encoding, require_encoding
from retfiner.data.table_columns import (
    FIRST_LINES,
    NAME_COLUMNS,
    SEPARATORS,
    Line,
    Opened,
    find_columns,
    find_header,
    header_notes,
    is_image,
    lacks_columns,
    plain_name,
)
from retfiner.data.workbook import open_workbook, value_text

TABLE_ENCODING = "--table_encoding"
HEAD = 1 << 16
LONGEST_CELL = 2**31 - 1

_FORMULA = re.compile(r'="(.*)"', re.DOTALL)
"""How exports keep Excel from taking 0001 for a number: ="0001"."""

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
            return _collect(open_workbook(path, columns, optional))
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
        if not error.advises(NAME_COLUMNS):
            raise
        raise error.changed(remedy=remedy) from None


def read_early(path: Path, columns: Sequence[str]) -> Table | None:
    """Read a table before a model is, to say in no time what is wrong with it.

    Returns:
        None where only the model's training knows how it is encoded.

    Raises:
        InputError: As :func:`read_table`.
    """
    try:
        return read_table(path, columns)
    except InputError as error:
        if error.advises(TABLE_ENCODING):
            return None
        raise


def require_whole_rows(table: Table, path: Path) -> None:
    """Make sure that no row of a table just read is broken.

    Raises:
        InputError: If one is.
    """
    if table.broken:
        row, reason = next(iter(table.broken.items()))
        raise InputError(
            f"{len(table.broken)} rows of {path} cannot be used", got=f"row {row}: {reason}"
        )


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


# ---- CSV


class MalformedCSVError(InputError):
    """A CSV whose cells cannot be told apart."""


class Quoting(NamedTuple):
    """A way to write cells that hold separators, and what is said of a table that is in it."""

    options: dict[str, Any]
    signs: tuple[str, ...] = ()
    """What such a table holds one of; without, the way is not tried."""
    note: str = ""


STANDARD = Quoting({"strict": True})
OTHER_QUOTINGS = (
    Quoting(
        {"strict": True, "escapechar": "\\", "doublequote": False},
        ('\\"',),
        'quotes within reports are written \\"',
    ),
    Quoting(
        {"quoting": csv.QUOTE_NONE, "escapechar": "\\"},
        tuple(f"\\{separator}" for separator in SEPARATORS),  # not those of a path of Windows
        "separators within reports are written with a \\ before them",
    ),
    Quoting({"quoting": csv.QUOTE_NONE}, ('"',), "quotes are read as they stand, around no cell"),
)
"""Ways that are tried where the standard one fails, and taken if all rows fit the header then."""


def _read_csv(
    path: Path, columns: Sequence[str], optional: Sequence[str], given: str | None
) -> Table:
    encoding = find_encoding(path) if given is None else require_encoding(given)
    try:
        try:
            standard = _collect(_open_csv(path, columns, optional, encoding, STANDARD))
        except MalformedCSVError as error:
            # A quotation without end may be a file without end: that is not read.
            tried = OTHER_QUOTINGS[: None if "expected after" in str(error) else 2]
            table = _read_otherwise(path, columns, optional, encoding, tried)
            if table is None:
                raise error from None
            return table
        if not standard.broken:
            return standard
        return _read_otherwise(path, columns, optional, encoding, OTHER_QUOTINGS[:2]) or standard
    except UnicodeError as error:
        raise InputError(
            f"{path} is not {encoding}",
            got="bytes that mean nothing in it",
            remedy="--table_encoding names the right one; or save it as CSV UTF-8",
        ) from error


def _read_otherwise(
    path: Path,
    columns: Sequence[str],
    optional: Sequence[str],
    encoding: str,
    quotings: Sequence[Quoting],
) -> Table | None:
    with path.open(encoding=encoding, newline="\n") as file:
        found = {q.note for line in file for q in quotings if any(s in line for s in q.signs)}
    for quoting in quotings:
        if quoting.note in found:
            with contextlib.suppress(MalformedCSVError):
                table = _collect(_open_csv(path, columns, optional, encoding, quoting))
                if not table.broken:
                    return table
    return None


def _open_csv(
    path: Path, columns: Sequence[str], optional: Sequence[str], encoding: str, quoting: Quoting
) -> Opened:
    """Find separator and header."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(HEAD)
    # Where lines end with \n, a lone \r is what an editor left inside a report.
    ending = re.search("\r?\n|\r", head)
    line_end = "\r" if ending and ending[0] == "\r" else "\n"
    first = head.splitlines()[:1]
    stated = re.fullmatch(r'\ufeff*"?sep=(.)"?', first[0], re.IGNORECASE) if first else None
    candidates = [stated[1]] if stated else list(SEPARATORS)
    skipped = 1 if stated else 0
    best: tuple[int, str, int, list[str], dict[str, int]] | None = None
    firsts = {}
    for separator in candidates:
        records = _first_records(head, line_end, skipped, separator, quoting)
        lines = list(enumerate(records, 1))
        firsts[separator] = lines
        found = find_header(path, lines, columns, optional)
        if found is not None:
            place, places = found
            header = lines[place][1]
            if best is None or len(header) > best[0]:
                best = (len(header), separator, place, header, places)
    if best is None:
        separator = max(firsts, key=lambda sign: _usual_width(firsts[sign]))
        raise lacks_columns(path, firsts[separator], columns, separator)
    width, separator, place, header, places = best
    notes = [] if encoding in ("utf-8", "utf-8-sig") else [f"encoding {encoding}"]
    notes += [] if separator == "," else [f"parted by {SEPARATORS.get(separator, separator)}"]
    notes += [quoting.note] if quoting.note else []
    notes += header_notes(header, place + 1, places)
    lines_of = _records(path, encoding, line_end, skipped, separator, quoting)
    below: Iterator[Line] = itertools.islice(lines_of, place + 1, None)
    if quoting is not STANDARD:
        below = _of_width(path, below, width)
    return Opened(below, header, places, separator, notes)


def _usual_width(lines: Sequence[Line]) -> int:
    widths = sorted(len(fields) for _, fields in lines)
    return widths[len(widths) // 2] if widths else 0


def _of_width(path: Path, lines: Iterator[Line], width: int) -> Iterator[Line]:
    """Make sure that each line has a header's number of cells, and take pairs of quotes off."""
    for number, fields in lines:
        if fields and len(fields) != width:
            raise MalformedCSVError(f"{path} has rows of several widths")
        yield number, [_unquoted(cell) for cell in fields]


def _unquoted(cell: str) -> str:
    is_whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1]
    return cell[1:-1] if is_whole else cell


def _first_records(
    head: str, line_end: str, skipped: int, separator: str, quoting: Quoting
) -> list[list[str]]:
    lines = head.split(line_end)
    if len(head) == HEAD and len(lines) > 1:
        lines.pop()  # cut in its middle
    lines = [line + line_end for line in lines[skipped:]]
    records = []
    with contextlib.suppress(csv.Error):  # of a later line: it is said when that is read
        for fields in itertools.islice(_parsed(lines, separator, quoting), FIRST_LINES):
            records.append(_inner(fields, separator))
    return records


def _parsed(lines: Iterable[str], separator: str, quoting: Quoting) -> Any:
    return csv.reader(
        _without_marks(lines), delimiter=separator, skipinitialspace=True, **quoting.options
    )


def _inner(fields: list[str], separator: str) -> list[str]:
    """Part a row that a program with another separator wrote as one cell: "a.png,""drusen"",1"."""
    if len(fields) == 1 and separator in fields[0]:
        return next(csv.reader([fields[0]], delimiter=separator, skipinitialspace=True), fields)
    return fields


def _without_marks(lines: Iterable[str]) -> Iterator[str]:
    """Take byte order marks off the first line, and out of all what ends lines in other files."""
    for number, line in enumerate(lines):
        text = line.lstrip("\ufeff") if number == 0 else line
        if text.endswith("\r"):
            text = text[:-1].replace("\n", " ") + "\n"
        elif "\r" in text:
            text = text.removesuffix("\n").removesuffix("\r").replace("\r", " ") + "\n"
        yield text


def _records(
    path: Path, encoding: str, line_end: str, skipped: int, separator: str, quoting: Quoting
) -> Iterator[Line]:
    with (
        path.open(encoding=encoding, newline=line_end) as file,
        progress(f"reading {path.name}", path.stat().st_size, "B") as bar,
    ):
        reader = _parsed(itertools.islice(file, skipped, None), separator, quoting)
        done = 0
        for number in itertools.count(1):
            line = reader.line_num + 1 + skipped
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise _malformed(path, error, line) from error
            if fields is None:
                return
            yield number, _inner(fields, separator)
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


# ---- Parquet


def _open_parquet(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Opened:
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    header = file.schema_arrow.names
    places = find_columns(path, header, columns, optional)
    if not all(column in places for column in columns):
        raise lacks_columns(path, [(1, header)], columns)
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
    notes = ["Parquet", *header_notes(header, 1, places)]

    def lines() -> Iterator[Line]:
        number = 1
        with progress(f"reading {path.name}", file.metadata.num_rows, "row") as bar:
            for batch in file.iter_batches(16384, columns=wanted):
                for values in zip(*(batch[name].to_pylist() for name in wanted), strict=True):
                    number += 1
                    yield number, [value_text(value) for value in values]
                bar.update(batch.num_rows)

    return Opened(lines(), wanted, dict(zip(places, range(len(wanted)), strict=True)), notes=notes)


# ---- rows


def _collect(opened: Opened) -> Table:
    table = Table([], {column: [] for column in opened.places}, {}, opened.notes)
    named = [bool(plain_name(name)) for name in opened.header]
    last = max((place for place, is_named in enumerate(named) if is_named), default=-1)
    for number, fields in opened.lines:
        if not any(INVISIBLE.sub("", cell).strip() for cell in fields):
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
    quoted = f'a report with a "{separator}" goes between double quotes: "..."'
    advice = f"({quoted}; or a name is missing in the header)"
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
        if len(parts) > 1 and any(is_image(p) or _shape(p) in shapes for p in parts):
            return True
    return False


def _shape(cell: str) -> str | None:
    """Return what names of a kind share: letters, and where numbers stand; None for other text."""
    is_name = re.fullmatch(r"(?=.*\d)(?=.*[^\W\d])\S{3,200}", cell.strip())
    return re.sub(r"\d+", "0", cell.strip()) if is_name else None
