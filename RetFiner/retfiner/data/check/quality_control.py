"""Everything that is checked, in its order: rows, identifiers, images, copies, the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retfiner.common.errors import InputError
from retfiner.data.check.images import Decode, read_images
from retfiner.data.check.row_checks import find_duplicates, find_identifiers, find_unusable_images
from retfiner.data.check.split import (
    SIDES_BY_WORD,
    TRAIN,
    VALIDATION,
    find_leaks,
    group_rows,
    require_disjoint,
    split_rows,
)
from retfiner.data.exams import each_image, fill_reports, find_mixed_reports
from retfiner.data.kinds import describe_kinds, is_unnamed, see_kinds, with_kinds
from retfiner.data.manifest import require_contrast
from retfiner.data.pair_table import (
    Columns,
    PairRow,
    PairTable,
    Problem,
    Reading,
    find_unusable_rows,
    read_pairs,
    strip_common_beginning,
)
from retfiner.data.patient_ids import describe_dashes, same_spelling
from retfiner.data.probing_pictures import ProbingPictures

PROBLEMS_IN_MESSAGE = 8


@dataclass(frozen=True)
class CheckedPairs:
    """A collection of pairs after all checks.

    ``kept`` are the rows that are used, ``sides`` the side of each of these. The rows in
    ``flagged`` may name a patient: never show them. ``notes`` say how the tables were read,
    ``warnings`` what is unlikely about them as a whole.
    """

    rows: list[PairRow]
    problems: list[Problem]
    kept: list[int]
    sides: list[str]
    flagged: frozenset[int]
    notes: list[str]
    warnings: list[str]

    @property
    def pairs(self) -> list[PairRow]:
        """The rows that are used."""
        return [self.rows[index] for index in self.kept]

    @property
    def may_be_shown(self) -> list[PairRow]:
        """The rows that are used and do not look as if they named a patient."""
        return [self.rows[index] for index in self.kept if index not in self.flagged]


def check_pairs(
    csv: Path,
    val_csv: Path | None,
    columns: Columns,
    *,
    image_root: Path | None,
    decode: Decode,
    workers: int,
    deidentify: bool,
    leave_out_flagged: bool,
    val_fraction: float,
    seed: int,
    reading: Reading,
    listed: frozenset[str] = frozenset(),
    not_in: Path | None = None,
) -> CheckedPairs:
    """Read a collection, check all of it, and split it unless it is split already.

    What is in the probing data sets below ``not_in`` is left out.

    Raises:
        InputError: If a table cannot be read, no row can be used, or a side is left empty.
    """
    paths = [csv] if val_csv is None else [csv, val_csv]
    tables = [read_pairs(path, columns, image_root, reading) for path in paths]
    strip_common_beginning(tables, reading.strip_common)
    rows = _join(tables, columns, reading)
    notes = [note for table in tables for note in table.notes]
    problems = []
    if columns.group is not None:
        rows = each_image(fill_reports(rows))
        problems += find_mixed_reports(rows)
        exams = len({row.group for row in rows})
        notes.append(f"{exams:,} exams, written as a row for each of their {len(rows):,} images")
    kinds = see_kinds((row.image for row in rows if row.name and is_unnamed(row)), first=None)
    rows = with_kinds(rows, kinds)
    notes += describe_kinds(kinds)
    problems += find_unusable_rows(rows)
    warnings = [warning for table in tables for warning in table.warnings]
    if note := describe_dashes(row.patient for row in rows if row.patient is not None):
        warnings.append(note)
    flags = find_identifiers(rows, leave_out_flagged, listed) if deidentify else []
    withheld = {flag.index for flag in flags if flag.role == "image"}
    facts = read_images([row.image for row in rows if row.name], decode, workers)
    rows = [replace(row, facts=facts.get(row.image)) for row in rows]
    problems += flags + find_unusable_images(rows, withheld)
    problems += find_duplicates(rows, _remaining(rows, problems))
    if not_in is not None:
        problems += _find_probed(rows, _remaining(rows, problems), not_in)
    kept = _remaining(rows, problems)
    if not kept:
        raise _no_usable_row(csv, rows, problems, tables[0].advice)

    groups = group_rows([rows[index] for index in kept])
    if val_csv is not None or columns.split is not None:
        problems += find_leaks(rows, groups, kept)
        kept = _remaining(rows, problems)
        sides = [str(rows[index].side) for index in kept]
        _require_both_sides(sides, val_csv or csv, problems)
    else:
        with _naming_left_out(problems):
            sides = split_rows([rows[index] for index in kept], groups, val_fraction, seed)
    with _naming_left_out(problems):
        require_contrast(sides.count(TRAIN), sides.count(VALIDATION))
    require_disjoint([rows[index] for index in kept], sides)
    problems.sort(key=lambda problem: problem.index)
    return CheckedPairs(
        rows,
        problems,
        kept,
        sides,
        frozenset(flag.index for flag in flags),
        notes,
        warnings,
    )


def _join(tables: Sequence[PairTable], columns: Columns, reading: Reading) -> list[PairRow]:
    """Put the rows of all tables together, each with its side and a name for each patient."""
    given = [TRAIN, VALIDATION] if len(tables) > 1 else [""]
    rows = []
    for table, side in zip(tables, given, strict=True):
        for row in table.rows:
            named = side if columns.split is None else SIDES_BY_WORD.get(str(row.side).casefold())
            rows.append(replace(row, side=named))
    if columns.has_patient and len(tables) > 1:
        names = same_spelling([str(row.patient) for row in rows], reading.patient_ids)
        rows = [replace(row, patient=name) for row, name in zip(rows, names, strict=True)]
    return rows


def _find_probed(rows: Sequence[PairRow], usable: Sequence[int], root: Path) -> list[Problem]:
    """Find rows whose picture or patient is in a probing data set; they are left out."""
    if not usable:
        return []
    facts = [rows[i].facts for i in usable]
    looks = np.stack([np.frombuffer(f.looks, bool) for f in facts if f is not None])
    shared = ProbingPictures.read(root).shared(looks, [rows[i].patient for i in usable])
    return [
        Problem(usable[k], "patient" if kind.startswith("patient") else "image", kind, detail, True)
        for k, (kind, detail) in shared.items()
    ]


def _remaining(rows: Sequence[PairRow], problems: Sequence[Problem]) -> list[int]:
    gone = {problem.index for problem in problems if problem.left_out}
    return [index for index in range(len(rows)) if index not in gone]


def _no_usable_row(
    csv: Path, rows: Sequence[PairRow], problems: Sequence[Problem], advice: str
) -> InputError:
    problems = sorted((p for p in problems if p.left_out), key=lambda problem: problem.index)
    counts = Counter(problem.kind for problem in problems)
    found = [f"{kind}: {n} row{'s' if n > 1 else ''}" for kind, n in counts.most_common()]
    for problem in problems[:PROBLEMS_IN_MESSAGE]:
        detail = f" ({problem.detail})" if problem.detail else ""
        found.append(f"row {rows[problem.index].number}: {problem.kind}{detail}")
    remedy = "mend these rows"
    if "image cannot be read" in counts:
        remedy += (
            f"; {advice}"
            if advice
            else "; --image_root names the folder that image paths are relative to"
        )
    if any(kind.startswith("may hold") for kind in counts):
        remedy += "; --flagged_rows keep, if what was found names nobody"
    return InputError(
        f"no row of {csv} can be used",
        got="\n            ".join(found) if rows else "a header without rows",
        expected="at least two pairs of an image and a report",
        remedy=remedy,
    )


def _left_out(problems: Sequence[Problem]) -> str:
    """Say which kinds of problem rows were left out for, to end a sentence about too few."""
    counts = Counter(problem.kind for problem in problems if problem.left_out)
    return "".join(f"; {kind}: {n} rows" for kind, n in counts.most_common())


@contextmanager
def _naming_left_out(problems: Sequence[Problem]) -> Iterator[None]:
    """Say with an error about too few rows which ones are gone."""
    try:
        yield
    except InputError as error:
        gone = _left_out(problems)
        if not gone:
            raise
        raise error.changed(
            got=f"{error.got}{gone}", remedy=f"mend these rows; {error.remedy}"
        ) from error


def _require_both_sides(sides: Sequence[str], source: Path, problems: Sequence[Problem]) -> None:
    gone = _left_out(problems)
    leaks = any(problem.kind == "patient on both sides" for problem in problems)
    cause = "patients are on both sides of the split: " if leaks else ""
    for side in (TRAIN, VALIDATION):
        if side not in sides:
            raise InputError(
                f"{cause}the given split leaves no pair for {side}",
                got=", ".join(f"{n} for {name}" for name, n in Counter(sides).items()) + gone,
                expected="pairs for train and for val, after patients on both sides are taken out",
                remedy=f"mend {source}, or leave the split to --val_fraction; --patient_ids"
                " exact, if patients that differ in case, zeros or decimals alone are several",
            )
