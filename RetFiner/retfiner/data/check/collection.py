"""Everything that is checked, in its order: rows, identifiers, images, copies, the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.data.check.checks import (
    find_duplicates,
    find_identifiers,
    find_unusable_images,
    find_unusable_rows,
)
from retfiner.data.check.images import Decode, ImageFacts, read_images
from retfiner.data.check.rows import TRAIN, VALIDATION, Columns, Problem, Row, left_out, read_rows
from retfiner.data.check.splitting import find_leaks, group_rows, require_disjoint, split_rows
from retfiner.vision.images import ImageAddress

PROBLEMS_IN_MESSAGE = 8


@dataclass(frozen=True)
class Tables:
    """Where the rows come from.

    Attributes:
        csv: The table.
        val_csv: A second one for validation, or None.
        image_root: Folder the image paths are relative to; by default each table's own.
        columns: What the columns are called.
    """

    csv: Path
    val_csv: Path | None
    image_root: Path | None
    columns: Columns

    @property
    def is_split(self) -> bool:
        """Whether it is given who is trained on and who is validated with."""
        return self.val_csv is not None or self.columns.split is not None


@dataclass(frozen=True)
class Checked:
    """A collection after all checks.

    Attributes:
        rows: All rows that were read.
        problems: What is wrong with them, by row.
        kept: The rows that are used.
        sides: The side of each of these: ``train``, ``val`` or ``test``.
        facts: What is known of each image.
        flagged: Rows that may name a patient; never show them.
    """

    rows: list[Row]
    problems: list[Problem]
    kept: list[int]
    sides: list[str]
    facts: Mapping[ImageAddress, ImageFacts]
    flagged: frozenset[int]

    def rows_of(self, *sides: str) -> list[Row]:
        """Return the rows that are used on some sides, of all sides if none is named."""
        pairs = zip(self.kept, self.sides, strict=True)
        return [self.rows[index] for index, side in pairs if not sides or side in sides]

    @property
    def may_be_shown(self) -> list[Row]:
        """The rows that are used and do not look as if they named a patient."""
        return [self.rows[index] for index in self.kept if index not in self.flagged]


def check_collection(
    tables: Tables,
    *,
    decode: Decode,
    workers: int,
    deidentify: bool,
    leave_out_flagged: bool,
    val_fraction: float,
    seed: int,
) -> Checked:
    """Read a collection, check all of it, and split it.

    Args:
        tables: Where the rows come from.
        decode: How closely images are looked at.
        workers: Processes that read images; 0 reads in this one.
        deidentify: Whether to look for what may name a patient.
        leave_out_flagged: Whether rows with such words are left out.
        val_fraction: Share of the patients for validation, where no split is given.
        seed: Which patients these are.

    Raises:
        InputError: If a table cannot be read, no row can be used, or a side is left empty.
    """
    rows = _read(tables)
    problems = find_unusable_rows(rows)
    flags = find_identifiers(rows, leave_out_flagged) if deidentify else []
    withheld = {flag.index for flag in flags if flag.role == "image"}
    facts = read_images([row.image for row in rows if row.name], decode, workers)
    problems += flags + find_unusable_images(rows, facts, withheld)
    problems += find_duplicates(rows, facts, _remaining(rows, problems))
    kept = _remaining(rows, problems)
    _require_rows(tables, rows, kept, problems)

    groups = group_rows([rows[index] for index in kept], facts)
    if tables.is_split:
        problems += find_leaks(rows, groups, kept)
        kept = _remaining(rows, problems)
        sides = [str(rows[index].side) for index in kept]
        _require_sides(tables, sides)
    else:
        sides = split_rows([rows[index] for index in kept], groups, facts, val_fraction, seed)
    require_disjoint([rows[index] for index in kept], sides, facts)
    problems.sort(key=lambda problem: problem.index)
    return Checked(rows, problems, kept, sides, facts, frozenset(flag.index for flag in flags))


def _read(tables: Tables) -> list[Row]:
    if tables.val_csv is None:
        return read_rows(tables.csv, tables.columns, tables.image_root)
    train = read_rows(tables.csv, tables.columns, tables.image_root, TRAIN)
    return train + read_rows(tables.val_csv, tables.columns, tables.image_root, VALIDATION)


def _remaining(rows: list[Row], problems: list[Problem]) -> list[int]:
    gone = left_out(problems)
    return [index for index in range(len(rows)) if index not in gone]


def _require_rows(
    tables: Tables, rows: list[Row], kept: list[int], problems: list[Problem]
) -> None:
    if kept:
        return
    counts = Counter(problem.kind for problem in problems if problem.left_out)
    first = [
        f"row {rows[problem.index].number}: {problem.kind}"
        + (f" ({problem.detail})" if problem.detail else "")
        for problem in sorted(problems, key=lambda problem: problem.index)
        if problem.left_out
    ][:PROBLEMS_IN_MESSAGE]
    found = [f"{kind}: {n} row{'s' if n > 1 else ''}" for kind, n in counts.most_common()]
    remedy = "mend these rows"
    if "image cannot be read" in counts:
        remedy += "; --image_root names the folder that image paths are relative to"
    if any(kind.startswith("may hold") for kind in counts):
        remedy += "; --flagged_rows keep, if what was found names nobody"
    raise InputError(
        f"no row of {tables.csv} can be used",
        got="\n            ".join(found + first) if rows else "a header without rows",
        expected="at least two pairs of an image and a report",
        remedy=remedy,
    )


def _require_sides(tables: Tables, sides: list[str]) -> None:
    for side in (TRAIN, VALIDATION):
        if side not in sides:
            raise InputError(
                f"the given split leaves no pair for {side}",
                got=", ".join(f"{n} for {name}" for name, n in Counter(sides).items()),
                expected="pairs for train and for val, after patients on both sides are taken out",
                remedy=f"mend {tables.val_csv or tables.csv}, or leave the split to --val_fraction",
            )
