"""The rows of the tables to check, and what can be wrong with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.data.check.images import ImageFacts
from retfiner.data.manifest import Columns, read_pairs
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
        facts: What the image's file holds; None until it is read.
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
    facts: ImageFacts | None = None

    @property
    def identity(self) -> str:
        """What rows of the same image share; see :attr:`ImageFacts.identity`."""
        assert self.facts is not None, f"the image of row {self.number} has not been read"
        return self.facts.identity

    def label(self, seen_from: Row) -> str:
        """Name the row in a message about another one: its number, with its file if it differs."""
        same_file = self.file == seen_from.file
        return f"row {self.number}" + ("" if same_file else f" of {self.file.name}")


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

    def column(self, columns: Columns) -> str:
        """Return what the user calls the column; empty for the row as a whole."""
        return "" if self.role == "row" else getattr(columns, self.role) or ""


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
    table = read_pairs(path, columns, image_root)
    return [
        Row(
            file=path,
            number=number,
            name=table.names[index],
            image=table.images[index],
            report=table.reports[index],
            patient=None if table.patients is None else table.patients[index],
            side=side if table.sides is None else SIDE_WORDS.get(table.sides[index].casefold()),
            broken=table.broken.get(number),
            unclear=table.unclear.get(index),
        )
        for index, number in enumerate(table.rows)
    ]
