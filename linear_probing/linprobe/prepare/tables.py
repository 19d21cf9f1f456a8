"""Tables: those of downloads, read as text, and ``split.csv``: whose each image is."""

from __future__ import annotations

import codecs
import io
import zipfile
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
COLUMNS = ("image", "class", "patient", "split", "source", "sha256", "pixels_sha256")
"""Of ``split.csv``: ``image`` is the path below the data set, ``source`` the file of the download
with ``#k`` for slice k, ``sha256`` that of the file, ``pixels_sha256`` that of the gray values and
their shape. An unknown patient is empty, and so is whatever else nobody knows."""


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV (commas, or as Excel writes it semicolons or tabs) or the first sheet of an xlsx.

    It must have the ``columns``. Cells are text, without blanks around them; an empty one is an
    empty text.

    Raises:
        InputError: If it cannot be read, or lacks a column.
    """
    import pandas as pd

    as_text = {"dtype": str, "keep_default_na": False}
    try:
        if path.suffix.lower() == ".xlsx":
            cells = pd.read_excel(path, engine="openpyxl", **as_text)
        else:
            content = path.read_bytes()
            utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            text = content.decode("utf-16" if utf16 else "utf-8-sig")
            delimiter = next((sign for sign in ",;\t" if sign in text.partition("\n")[0]), ",")
            cells = _under_names(pd.read_csv(io.StringIO(text), sep=delimiter, **as_text))
    except (OSError, LookupError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as a table",
            got=error,
            expected="a CSV in UTF-8 or UTF-16, or an Excel file, as published",
            remedy="download it again, or save it as 'CSV UTF-8'",
        ) from error
    lacking = [name for name in columns if name not in cells]
    if lacking:
        raise InputError(
            f"{path} does not have the columns of such a table: it lacks {', '.join(lacking)}",
            got=", ".join(map(str, cells.columns)) or "an empty file",
            expected=", ".join(columns),
            remedy="give the table as downloaded, or download it again",
        )
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    return cells[(cells != "").any(axis=1)].reset_index(drop=True)


def _under_names(cells: pd.DataFrame) -> pd.DataFrame:
    """Put cells under the names above them where rows are longer than the header.

    pandas takes the first cells of such rows for an index, which shifts all others.

    Raises:
        ValueError: If one under no name is not empty.
    """
    import pandas as pd

    if isinstance(cells.index, pd.RangeIndex):
        return cells
    width = cells.shape[1]
    whole = cells.reset_index()
    if (surplus := whole.iloc[:, width:].fillna("") != "").any(axis=None):
        row = 2 + int(surplus.any(axis=1).argmax())
        raise ValueError(
            f"row {row} has {whole.shape[1]} cells under {width} names: a comma without quotes?"
        )
    return whole.iloc[:, :width].set_axis(cells.columns, axis=1)


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


def split_rows(rows: Sequence[Sequence[str]], about: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Lay out rows of ``split.csv``, hashes left out: image, class, patient, split, source.

    ``about`` are columns of ``ABOUT`` and targets of each row, as far as they are known.
    """
    import pandas as pd

    known = pd.DataFrame(list(about), index=range(len(rows))).fillna("")
    targets = [name for name in known if name.startswith(TARGET)]
    laid = pd.DataFrame(rows, columns=list(COLUMNS[:5]))
    return laid.join(known[[*(name for name in ABOUT if name in known), *targets]])


def write_split(folder: Path, rows: pd.DataFrame) -> None:
    """Write ``split.csv``, sorted by split, class and name."""
    order = rows.assign(split=rows["split"].map(SPLITS.index))
    order = order.sort_values(["split", "class", "image"])
    columns = [*COLUMNS, *(name for name in rows if name not in (*COLUMNS, "border"))]
    with whole_file(folder / SPLIT_TABLE) as temporary:
        # A file name of a download need not be UTF-8; what is not, is shown as an escape.
        rows.loc[order.index, columns].to_csv(temporary, index=False, errors="backslashreplace")


def shared_patients(rows: pd.DataFrame) -> list[str]:
    """Name the patients that are in more than one split."""
    splits = rows[rows["patient"] != ""].groupby("patient")["split"].nunique()
    return sorted(splits.index[splits > 1])


def count(rows: pd.DataFrame) -> pd.DataFrame:
    """Count ``images`` and ``patients`` by split and class, ``all`` among them.

    Patients are -1 where any is unknown.
    """
    import pandas as pd

    both = pd.concat([rows, rows.assign(**{"class": "all"})])
    grouped = both.groupby(["split", "class"], sort=False)
    counts = grouped.agg(images=("image", "size"), patients=("patient", "nunique"))
    labels = [*sorted(set(rows["class"])), "all"]
    every = pd.MultiIndex.from_product([SPLITS, labels], names=["split", "class"])
    counts = counts.reindex(every, fill_value=0)
    return counts if (rows["patient"] != "").all() else counts.assign(patients=-1)
