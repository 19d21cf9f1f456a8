"""Tables of downloads: CSV and Excel, read as text by column."""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from retfiner.common.errors import InputError

Rows = list[dict[str, str]]
"""Cells by column; a cell that is empty or absent is an empty text."""

MAX_XLSX_BYTES = 2**27
"""Most bytes of an Excel file, unpacked."""

MAX_ROWS, MAX_COLUMNS = 2**20, 2**14
"""Excel's own limits; a file may claim more, and is then padded with empty cells."""

_BROKEN_XLSX = (
    OSError,
    SyntaxError,  # what is no XML, entities that refer to one another included
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,  # zipfile: a password, or a kind of compression it does not know
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)
_AGAIN = "download the table again"

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_csv(path: Path, columns: Sequence[str], *, exactly: bool = False) -> Rows:
    """Read a CSV with commas or, as Excel writes it in some countries, semicolons.

    Raises:
        InputError: If it has another encoding, lacks a column, or has a row of another length.
    """
    text = _decode(path)
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header, columns, exactly)
        rows = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(row)} cells",
                    expected=f"{len(header)} cells, as in its header",
                    remedy=_AGAIN,
                )
            rows.append(dict(zip(header, (cell.strip() for cell in row), strict=True)))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV", got=error) from error
    return rows


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=error) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not in UTF-8",
            got=f"byte {content[error.start]:#04x} at position {error.start}",
            expected="UTF-8, as published",
            remedy="download it again, or save it as 'CSV UTF-8'",
        ) from error


def _check_header(path: Path, header: list[str], columns: Sequence[str], exactly: bool) -> None:
    fits = header == list(columns) if exactly else set(columns) <= set(header)
    if not fits or len(set(header)) < len(header):
        raise InputError(
            f"{path} does not have the columns of this data set's table",
            got=", ".join(header) or "an empty file",
            expected=", ".join(columns) + ("" if exactly else " among them"),
            remedy="give the table as downloaded",
        )


def read_xlsx(path: Path, columns: Sequence[str]) -> Rows:
    """Read the first sheet of an Excel file.

    Raises:
        InputError: If it is no Excel file or lacks a column.
    """
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        _require_small(path)
        table = _first_sheet(path)
    except InputError:
        raise
    except (InvalidFileException, *_BROKEN_XLSX) as error:
        got = str(error) or type(error).__name__
        raise InputError(f"{path} is no intact Excel file", got=got, remedy=_AGAIN) from error
    header = table[0] if table else []
    _check_header(path, [name for name in header if name], columns, exactly=False)
    rows = [dict(zip(header, row, strict=False)) for row in table[1:]]
    return [row for row in rows if any(row.values())]


def _first_sheet(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    try:
        table = []
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True)):
            if number > MAX_ROWS or len(row) > MAX_COLUMNS:
                raise InputError(
                    f"{path} is far larger than a data set's table",
                    expected=f"at most {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns",
                )
            table.append([_text(cell) for cell in row])
        return table
    finally:
        book.close()


def _require_small(path: Path) -> None:
    """Refuse a bomb: sheets and texts of an Excel file are unpacked into memory."""
    with zipfile.ZipFile(path) as archive:
        size = sum(info.file_size for info in archive.infolist())
    if size > MAX_XLSX_BYTES:
        raise InputError(
            f"{path} unpacks to far more than a data set's table",
            got=f"{size:,} bytes",
            expected=f"at most {MAX_XLSX_BYTES:,}",
            remedy="save the table alone as a CSV",
        )


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
