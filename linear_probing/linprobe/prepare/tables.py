"""Tables: those of downloads, read as text, and ``split.csv``: whose each image is."""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from linprobe.prepare.spec import LeftOut
from retfiner.common.errors import InputError
from retfiner.common.files import whole_file
from retfiner.common.patients import ABOUT, SPLIT_TABLE, TARGET

if TYPE_CHECKING:
    import pandas as pd

# pandas takes half a second to import, without which wrong paths and --list are told: what needs
# a table of it gets one here.

SPLITS = ("train", "val", "test")
NEEDED = ("image", "class", "patient", "split")
COLUMNS = (*NEEDED, "source", "sha256", "pixels_sha256")
"""Of ``split.csv``: ``image`` is the path below the data set, ``source`` the file of the download
with ``#k`` for slice k, ``sha256`` that of the file, ``pixels_sha256`` that of the gray values and
their shape. An unknown patient is empty, and so is whatever else nobody knows."""

MAX_XLSX_BYTES = 2**27
"""Most bytes of an Excel file, unpacked."""
MAX_ROWS, MAX_COLUMNS = 2**20, 2**14
"""Excel's own limits; a file may claim more, and is then padded with empty cells."""

_BROKEN_XLSX = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, TypeError, ValueError,
    RuntimeError,  # zipfile: a password, or a kind of compression it does not know
    SyntaxError,  # what is no XML, entities that refer to one another included
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_AGAIN = "give the table as downloaded, or download it again"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table(path: Path, columns: Sequence[str], *, exactly: bool = False) -> pd.DataFrame:
    """Read a CSV (commas, or as Excel writes it semicolons or tabs) or the first sheet of an xlsx.

    It must have the ``columns``; ``exactly`` these alone, in this order. Cells are text, without
    blanks around them; an empty one is an empty text.

    Raises:
        InputError: If it cannot be read, lacks a column, or has a row of another length.
    """
    rows = _read_xlsx(path) if path.suffix.lower() == ".xlsx" else _read_csv(path)
    header = rows[0] if rows else []
    lacking = [name for name in columns if name not in header]
    fits = header == list(columns) if exactly else not lacking
    named = [name for name in header if name]
    if not fits or len(set(named)) < len(named):
        raise InputError(
            f"{path} does not have the columns of such a table"
            + (f": it lacks {', '.join(lacking)}" if lacking else ""),
            got=", ".join(named) or "an empty file",
            expected=", ".join(columns) + ("" if exactly else " among them"),
            remedy=_AGAIN,
        )
    import pandas as pd

    return pd.DataFrame(rows[1:], columns=header, dtype=str)[named]


def _read_csv(path: Path) -> list[list[str]]:
    text = _decode(path)
    first = text.partition("\n")[0]
    delimiter = next((sign for sign in ",;\t" if sign in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[list[str]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if rows and not any(cells):
                continue
            if rows and len(cells) != len(rows[0]):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells",
                    expected=f"{len(rows[0])} cells, as in its header",
                    remedy=_AGAIN,
                )
            rows.append(cells)
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


def _read_xlsx(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with zipfile.ZipFile(path) as archive:  # sheets and texts are unpacked into memory
            size = sum(info.file_size for info in archive.infolist())
        _require_small(path, size <= MAX_XLSX_BYTES)
        book = load_workbook(path, read_only=True, data_only=True)
        rows: list[list[str]] = []
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True)):
            _require_small(path, number <= MAX_ROWS and len(row) <= MAX_COLUMNS)
            cells = [_text(cell) for cell in row]
            width = len(rows[0]) if rows else len(cells)
            if not rows or any(cells):
                rows.append((cells + [""] * width)[:width])
        book.close()
        return rows
    except InputError:
        raise
    except (InvalidFileException, *_BROKEN_XLSX) as error:
        got = str(error) or type(error).__name__
        raise InputError(f"{path} is no intact Excel file", got=got, remedy=_AGAIN) from error


def _require_small(path: Path, fits: bool) -> None:
    if not fits:
        raise InputError(
            f"{path} unpacks to far more than a data set's table",
            expected=f"at most {MAX_XLSX_BYTES:,} bytes, {MAX_ROWS:,} by {MAX_COLUMNS:,} cells",
            remedy="save the table alone as a CSV",
        )


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def match(
    rows: pd.DataFrame,
    column: str,
    keys: Sequence[str],
    files: Mapping[str, PurePosixPath],
    table: str,
    what: str,
    remedy: str,
) -> tuple[pd.DataFrame, list[LeftOut]]:
    """Give the rows of a table that have a file, with it in ``place``; and what of either has none.

    ``keys`` are what rows call their ``files``; messages name the ``table``, the ``column`` that
    names files, ``what`` a file is (``image``), and a ``remedy`` where much has no counterpart.
    """
    placed = rows.assign(place=[files.get(key) for key in keys])
    absent = placed.loc[placed["place"].isna(), column].tolist()
    found = placed[placed["place"].notna()]
    known = set(found["place"])
    unknown = [str(path) for path in files.values() if path not in known]
    return found, [
        LeftOut(f"rows of {table} have no {what}", absent, len(rows), remedy),
        LeftOut(f"{what}s are not in {table}", unknown, len(files), remedy),
    ]


# ---- split.csv


def split_rows(
    rows: Sequence[Sequence[str]], about: Sequence[Mapping[str, str]] = ()
) -> pd.DataFrame:
    """Lay out rows of ``split.csv``, hashes left out: image, class, patient, split, source.

    ``about`` are columns of ``ABOUT`` and targets of each row, as far as they are known.
    """
    import pandas as pd

    laid = pd.DataFrame(rows, columns=list(COLUMNS[:5]))
    known = dict.fromkeys(name for one in about for name in one)
    for name in [*(n for n in ABOUT if n in known), *(n for n in known if n not in ABOUT)]:
        laid[name] = [one.get(name, "") for one in about]
    return laid


def write_split(folder: Path, rows: pd.DataFrame) -> None:
    """Write ``split.csv``, sorted by split, class and name."""
    order = rows.assign(split=rows["split"].map(SPLITS.index))
    order = order.sort_values(["split", "class", "image"])
    with whole_file(folder / SPLIT_TABLE) as temporary:
        # A file name of a download need not be UTF-8; what is not, is shown as an escape.
        more = (name for name in rows if name in ABOUT or name.startswith(TARGET))
        columns = [*COLUMNS, *more]
        rows.loc[order.index, columns].to_csv(
            temporary, index=False, encoding="utf-8", errors="backslashreplace"
        )


def read_split(path: Path) -> pd.DataFrame:
    """Read a ``split.csv``, our own or somebody else's, which may lack columns after the fourth.

    Raises:
        InputError: If it cannot be read, lacks a column, or a row says something impossible.
    """
    rows = read_table(path, NEEDED).reindex(columns=list(COLUMNS), fill_value="")
    rows["image"] = rows["image"].str.replace("\\", "/")
    if rows.empty:
        raise InputError(f"{path} has no rows")
    wrong = ~rows["split"].isin(SPLITS) | (rows["image"] == "") | (rows["class"] == "")
    if wrong.any():
        row = rows[wrong].iloc[0]
        raise InputError(
            f"{path}, line {wrong.idxmax() + 2}, does not say where an image belongs",
            got=f"image {row['image']!r}, class {row['class']!r}, split {row['split']!r}",
            expected=f"an image, a class, and one of {', '.join(SPLITS)}",
        )
    absent = sorted(set(SPLITS) - set(rows["split"]))
    if absent:
        raise InputError(f"{path} has no image in {' and '.join(absent)}")
    return rows


def shared_patients(rows: pd.DataFrame) -> list[str]:
    """Name the patients that are in more than one split."""
    splits = rows[rows["patient"] != ""].groupby("patient")["split"].nunique()
    return sorted(splits.index[splits > 1])


def identical_across_splits(rows: pd.DataFrame) -> int:
    """Count images that are in several splits under different names, byte for byte the same."""
    splits = rows[rows["sha256"] != ""].groupby("sha256")["split"].nunique()
    return int((splits > 1).sum())


Counts = dict[str, dict[str, tuple[int, int | None]]]
"""Images and patients by split and class; of patients, None where any is unknown."""


def count(rows: pd.DataFrame) -> Counts:
    """Count images and patients by split and class; an empty class stands for all."""
    counts: Counts = {}
    for split in SPLITS:
        inside = rows[rows["split"] == split]
        parts = {label: inside[inside["class"] == label] for label in sorted(set(rows["class"]))}
        counts[split] = {
            label: (len(part), part["patient"].nunique() if (part["patient"] != "").all() else None)
            for label, part in {**parts, "": inside}.items()
        }
    return counts
