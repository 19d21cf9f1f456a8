"""The rows of the tables to check, and what can be wrong with one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from retfiner.data.check.images import ImageFacts
from retfiner.data.manifest import Columns, PairRow, read_pairs

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
class Row(PairRow):
    """A row as it stands in a table.

    ``side`` is ``train``, ``val`` or ``test``; empty where no split is given; None where the cell
    names none of them. ``facts`` say what the image's file holds; None until it is read.
    """

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

    ``kind`` is in words that are the same for each row that has it; ``detail`` is what this row
    adds to that, never a patient's name and never a report's words.
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
    """Read the rows of a table, all of them on ``side`` where it has no column with the split.

    Raises:
        InputError: If the file or a column is missing, or the file is no well-formed CSV in UTF-8.
    """
    rows = [Row(**vars(row)) for row in read_pairs(path, columns, image_root)]
    if columns.split is None:
        return [replace(row, side=side) for row in rows]
    return [replace(row, side=SIDE_WORDS.get(str(row.side).casefold())) for row in rows]
