"""Tables of downloads: CSV and Excel, read as text by column."""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from retfiner.common.errors import InputError, shorten

Rows = list[dict[str, str]]
"""Cells by column; a cell that is empty or absent is an empty text."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_csv(path: Path, columns: Sequence[str], *, exactly: bool = False) -> Rows:
    """Read a CSV with commas or, as Excel writes it in some countries, semicolons.

    Args:
        path: The file, in UTF-8, or in UTF-16 with its mark.
        columns: Columns it must have.
        exactly: Whether it must have these alone, in this order.

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
                    got=shorten(row),
                    expected=f"{len(header)} cells, as in its header",
                    remedy="download the table again",
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

    Args:
        path: The file.
        columns: Columns it must have; its first row names them.

    Raises:
        InputError: If it is no Excel file or lacks a column.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, InvalidFileException) as error:
        raise InputError(f"{path} is no intact Excel file", got=error) from error
    try:
        values = book.worksheets[0].iter_rows(values_only=True)
        header = [_text(cell) for cell in next(values, ())]
        _check_header(path, [name for name in header if name], columns, exactly=False)
        rows = [dict(zip(header, map(_text, row), strict=False)) for row in values]
    finally:
        book.close()
    return [row for row in rows if any(row.values())]


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
