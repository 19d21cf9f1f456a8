"""The rows of the tables to check, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.data.manifest import (
    NO_PATIENT_COLUMN,
    NO_SLICE_COLUMN,
    SLICE_COLUMN,
    locate_images,
)
from retfiner.data.table import read_table
from retfiner.vision.images import ImageAddress

Role = Literal["row", "image", "report", "patient", "split"]
"""What a column is used for; ``row`` stands for the row as a whole."""

TRAIN, VALIDATION, TEST = SIDES = ("train", "val", "test")
"""The sides of a split, in the order in which a patient on several of them is kept."""

SIDE_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


@dataclass(frozen=True)
class Row:
    """A row as it stands in a table.

    Attributes:
        file: The table it stands in.
        number: Its number there, the header being row 1, as a spreadsheet counts.
        name: The image column's cell.
        image: The image it stands for: a file, or one B-scan of a volume.
        report: The report, runs of white space made single spaces.
        patient: The patient, or None where the user said there is no such column.
        side: ``train``, ``val`` or ``test``; empty where no split is given; None where the cell
            names none of them.
        broken: Why its fields cannot be told apart, or None.
        unclear: Why it cannot be told which image it stands for, or None.
    """

    file: Path
    number: int
    name: str
    image: ImageAddress
    report: str
    patient: str | None
    side: str | None = ""
    broken: str | None = None
    unclear: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a row, or may be.

    Attributes:
        index: Which row of those that were read.
        role: The column it concerns.
        kind: What it is, in words that are the same for each row that has it.
        detail: What this row adds to that; never a patient's name and never a report's words.
        left_out: Whether the row is left out for it.
    """

    index: int
    role: Role
    kind: str
    detail: str = ""
    left_out: bool = False


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    Attributes:
        image: Column with the path of the image.
        report: Column with the report.
        patient: Column with the patient, or ``none``.
        split: Column with the side of the split, or None.
        slice: Column with the B-scan's index in a volume; None is ``slice``, where there is such a
            column; ``none`` leaves it alone.
    """

    image: str = "image"
    report: str = "report"
    patient: str = "patient_id"
    split: str | None = None
    slice: str | None = None

    @property
    def has_patient(self) -> bool:
        """Whether there is a column with the patient."""
        return self.patient != NO_PATIENT_COLUMN

    @property
    def wanted(self) -> list[str]:
        """The columns that have to be there."""
        more = [self.patient if self.has_patient else None, self.split]
        more.append(None if self.slice == NO_SLICE_COLUMN else self.slice)
        return [self.image, self.report, *(name for name in more if name is not None)]

    def name(self, role: Role) -> str:
        """Return what the user calls a column; empty for the row as a whole."""
        names: dict[Role, str] = {
            "row": "",
            "image": self.image,
            "report": self.report,
            "patient": self.patient,
            "split": self.split or "",
        }
        return names[role]


def read_rows(path: Path, columns: Columns, image_root: Path | None, side: str = "") -> list[Row]:
    """Read the rows of a table; nothing is checked but that it is one.

    Args:
        path: The CSV, UTF-8, with a header.
        columns: What its columns are called.
        image_root: Folder the image paths are relative to; by default the CSV's own.
        side: The side of the split that every row is on, where a whole file is one side.

    Raises:
        InputError: If the file or a column is missing, or the file is no well-formed CSV in UTF-8.
    """
    table = read_table(path, columns.wanted, [SLICE_COLUMN] if columns.slice is None else [])
    root = path.parent if image_root is None else image_root
    cells = table.cells
    names = [name.strip() for name in cells[columns.image]]
    no_slices = [""] * len(names)
    slices = cells.get(columns.slice or SLICE_COLUMN, no_slices)
    images, unclear = locate_images(root, names, slices)
    rows = []
    for index, number in enumerate(table.rows):
        given: str | None = side
        if columns.split is not None:
            given = SIDE_WORDS.get(cells[columns.split][index].strip().casefold())
        rows.append(
            Row(
                file=path,
                number=number,
                name=names[index],
                image=images[index],
                report=" ".join(cells[columns.report][index].split()),
                patient=cells[columns.patient][index].strip() if columns.has_patient else None,
                side=given,
                broken=table.broken.get(number),
                unclear=unclear.get(index),
            )
        )
    return rows


def left_out(problems: Iterable[Problem]) -> set[int]:
    """Return the rows that are left out."""
    return {problem.index for problem in problems if problem.left_out}


def row_label(rows: Sequence[Row], index: int, seen_from: int) -> str:
    """Name a row: its number, with its file where that is another one.

    Args:
        rows: All rows.
        index: The row to name.
        seen_from: The row in whose problem it is named.
    """
    row = rows[index]
    same_file = row.file == rows[seen_from].file
    return f"row {row.number}" + ("" if same_file else f" of {row.file.name}")
