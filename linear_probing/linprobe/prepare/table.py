"""``split.csv``: each image, its class, its patient and its split; written, read, and checked."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linprobe.prepare.splits import SPLITS
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import whole_file
from retfiner.common.patients import SPLIT_TABLE

NEEDED = ("image", "class", "patient", "split")
COLUMNS = (*NEEDED, "source", "sha256", "pixels_sha256")
"""``sha256`` is that of the file, ``pixels_sha256`` that of the gray values and their shape."""


@dataclass(frozen=True)
class Row:
    """An image of a data set.

    Attributes:
        image: Path below the data set, ``<split>/<Class>/<file>``.
        label: Its class.
        patient: Whose it is; empty where nobody knows.
        split: ``train``, ``val`` or ``test``.
        source: File of the download it comes from, with ``#k`` for slice k; maybe empty.
        sha256: Of the file; maybe empty.
        pixels_sha256: Of the pixels; empty for files that were copied.
    """

    image: str
    label: str
    patient: str
    split: str
    source: str = ""
    sha256: str = ""
    pixels_sha256: str = ""


def write_table(folder: Path, rows: Sequence[Row]) -> None:
    """Write ``split.csv``, sorted by split, class and name."""
    with (
        whole_file(folder / SPLIT_TABLE) as temporary,
        # A file name of a download need not be UTF-8; what is not, is shown as an escape.
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda row: (SPLITS.index(row.split), row.label, row.image)):
            writer.writerow(
                (
                    row.image,
                    row.label,
                    row.patient,
                    row.split,
                    row.source,
                    row.sha256,
                    row.pixels_sha256,
                )
            )


def read_table(path: Path) -> list[Row]:
    """Read a table of this kind, our own or somebody else's.

    Args:
        path: The table; columns other than :data:`COLUMNS` are left, and those after the fourth
            may be missing.

    Raises:
        InputError: If it cannot be read, lacks a column, or a row says something impossible.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in NEEDED if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"{path} lacks {', '.join(missing)}",
                    got=", ".join(reader.fieldnames or []) or "an empty file",
                    expected=f"columns {', '.join(NEEDED)}",
                )
            rows = [_row(values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV in UTF-8", got=error) from error
    _check(path, rows)
    return rows


def _row(values: dict[str, str | None]) -> Row:
    cells = [(values.get(name) or "").strip() for name in COLUMNS]
    cells[0] = cells[0].replace("\\", "/")
    return Row(*cells)


def _check(path: Path, rows: Sequence[Row]) -> None:
    if not rows:
        raise InputError(f"{path} has no rows")
    for number, row in enumerate(rows, start=2):
        if row.split not in SPLITS or not row.image or not row.label:
            raise InputError(
                f"{path}, line {number}, does not say where an image belongs",
                got=f"image {row.image!r}, class {row.label!r}, split {row.split!r}",
                expected=f"an image, a class, and one of {', '.join(SPLITS)}",
            )
    absent = sorted(set(SPLITS) - {row.split for row in rows})
    if absent:
        raise InputError(f"{path} has no image in {' and '.join(absent)}")


def shared_patients(rows: Sequence[Row]) -> list[str]:
    """Name the patients that are in more than one split."""
    places: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient:
            places[row.patient].add(row.split)
    return sorted(patient for patient, splits in places.items() if len(splits) > 1)


def prove_disjoint(folder: Path) -> list[Row]:
    """Read ``split.csv`` back and check that no patient is in two splits.

    Returns:
        The rows.

    Raises:
        InputError: If a patient is in two splits.
    """
    rows = read_table(folder / SPLIT_TABLE)
    shared = shared_patients(rows)
    if shared:
        raise InputError(
            "The split that was made shares patients and is not written",
            got=shorten(shared),
            expected="each patient in one of train, val and test",
            remedy="please report this with the command you gave",
        )
    return rows


def identical_across_splits(rows: Sequence[Row]) -> int:
    """Count images that are in several splits under different names, byte for byte the same."""
    places: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        places[row.sha256].add(row.split)
    places.pop("", None)
    return sum(len(splits) > 1 for splits in places.values())
