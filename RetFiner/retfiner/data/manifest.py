"""The table of image-report pairs: read, checked row by row, and split by patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from retfiner.common.errors import InputError, shorten
from retfiner.data.exams import (
    CENTRE,
    Content,
    Exam,
    contents_of,
    describe_exams,
    fill_reports,
    find_mixed_reports,
    gather,
)
from retfiner.data.file_looks import look_at_each
from retfiner.data.kinds import describe_kinds, is_unnamed, see_kinds, with_kinds
from retfiner.data.pair_table import (
    Columns,
    PairTable,
    Problem,
    Reading,
    count_problems,
    find_unusable_rows,
    read_pairs,
    strip_common_beginning,
)
from retfiner.data.patient_ids import PatientIds, describe_dashes, shared_patients
from retfiner.data.report_parts import keep_findings
from retfiner.vision.images import ImageAddress, why_unusable
from retfiner.vision.images.image_file import WHICH_ONE
from retfiner.vision.images.read_as import OCT

OnBadRow = Literal["error", "skip"]
TRAINING, VALIDATING = "train.csv", "val.csv"
"""The tables of a folder that prepare_pairs.py wrote."""


@dataclass(frozen=True)
class Manifest:
    """Image-report pairs that were checked.

    ``patients`` is None where the user said there is no such column; ``rows`` are numbers in the
    table, the header being row 1, as a spreadsheet counts; ``skipped`` has number and reason of
    each row that was left out. ``notes`` say how the table was read and what is unlikely about it;
    ``patient_ids`` when two names are one patient. Where rows are grouped to ``exams``, each pair
    is one of them, its row the first of it, and ``images`` holds the one in its middle.
    """

    source: Path
    images: list[ImageAddress]
    reports: list[str]
    patients: list[str] | None
    rows: list[int]
    skipped: list[tuple[int, str]]
    notes: list[str] = field(default_factory=list)
    patient_ids: PatientIds = "normalised"
    exams: list[Exam] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def patient_count(self) -> int | None:
        """How many patients there are; None where they are not known."""
        return None if self.patients is None else len(set(self.patients))

    @property
    def modalities(self) -> set[str]:
        """The kinds of image there are: ``oct`` is all that is gray, ``fundus`` has its colours."""
        images = self.images
        if self.exams is not None:
            images = [part.content.address for exam in self.exams for part in exam.parts]
        return {image.read_as.modality or OCT for image in images}

    @property
    def images_of_pairs(self) -> list[list[ImageAddress]]:
        """Every image of each pair: of an exam all that its rows name, used or not."""
        if self.exams is None:
            return [[image] for image in self.images]
        contents = [[part.content for part in exam.parts] for exam in self.exams]
        return [[c.image(n) for c in parts for n in range(c.images)] for parts in contents]

    def select(self, indices: Sequence[int]) -> Manifest:
        """Return the pairs at ``indices``, in that order."""
        return replace(
            self,
            images=[self.images[i] for i in indices],
            reports=[self.reports[i] for i in indices],
            patients=None if self.patients is None else [self.patients[i] for i in indices],
            rows=[self.rows[i] for i in indices],
            exams=None if self.exams is None else [self.exams[i] for i in indices],
        )


def read_manifest(
    path: Path,
    image_root: Path | None = None,
    columns: Columns | None = None,
    *,
    on_bad_row: OnBadRow = "error",
    reading: Reading | None = None,
) -> Manifest:
    """Read a table of image-report pairs and check every row before anything is built.

    Args:
        path: A CSV, .xlsx or .parquet with a header.
        image_root: Folder the image paths are relative to; by default the table's own.
        columns: What its columns are called.
        on_bad_row: ``error`` stops at rows that cannot be used; ``skip`` leaves them out.
        reading: How cells are read that can be read in two ways.

    Raises:
        InputError: If the file or a column is missing, if a row cannot be used and ``on_bad_row``
            is ``error``, or if no row is left.
    """
    columns, reading = columns or Columns(), reading or Reading()
    [table] = read_whole([path], columns, image_root, reading)
    return _checked(table, columns, on_bad_row, reading)


def read_whole(
    paths: Sequence[Path], columns: Columns, image_root: Path | None, reading: Reading
) -> list[PairTable]:
    """Read tables whose reports lose what is not to be read of them; rows are not checked.

    Raises:
        InputError: As :func:`retfiner.data.pair_table.read_pairs`.
    """
    tables = [read_pairs(path, columns, image_root, reading) for path in paths]
    strip_common_beginning(tables, reading.strip_common)
    if reading.findings_only:
        keep_findings(tables)
    return tables


def _checked(
    table: PairTable, columns: Columns, on_bad_row: OnBadRow, reading: Reading
) -> Manifest:
    if columns.group is not None:
        table.rows = fill_reports(table.rows)
    rows = table.rows
    found = find_unusable_rows(rows)
    found += find_mixed_reports(rows) if columns.group is not None else []
    problems, contents = _why_left_out(table, found, columns.group is not None)
    if problems and on_bad_row == "error":
        whole = columns.group is None and any(WHICH_ONE in reason for _, reason in problems)
        advice = "if one report is of all B-scans, --group_column COLUMN names its exam; or "
        raise InputError(
            f"{len(problems)} of {len(rows)} rows of {table.source} cannot be used",
            got="\n            ".join(f"row {row}: {reason}" for row, reason in problems[:8])
            + (f"\n            ... and {len(problems) - 8} more" if len(problems) > 8 else ""),
            expected="an existing image, a report with words and a patient in every row",
            remedy=(table.advice and f"{table.advice}; or ")
            + advice * whole
            + "mend these rows; --image_root names the folder that paths are relative to; "
            "--on_bad_row skip leaves such rows out",
        )
    bad = {row for row, _ in problems}
    kept = [row for row in rows if row.number not in bad]
    if not kept:
        raise InputError(
            f"no row of {table.source} can be used",
            got=problems[0][1] if problems else "a header without rows",
            expected="at least two image-report pairs",
            remedy=table.advice or None,
        )
    unnamed = [content.address for row in kept if is_unnamed(row)
               for content in contents.get(row.image, [Content(row.image)])]  # fmt: skip
    kinds = see_kinds(unnamed)
    table.notes += describe_kinds(kinds)
    exams = None
    if columns.group is None:
        kept = with_kinds(kept, kinds)
    else:
        gathered = gather(kept, contents, kinds)
        kept, exams = [row for row, _ in gathered], [exam for _, exam in gathered]
        table.notes.append(describe_exams(exams))
    counted = count_problems([p for p in found if not p.left_out], rows, columns)
    warnings = [f"{count.kind}: {count.rows} rows ({', '.join(count.first)})" for count in counted]
    return Manifest(
        source=table.source,
        images=[row.image for row in kept] if exams is None else [_middle(exam) for exam in exams],
        reports=[row.report for row in kept],
        patients=[str(row.patient) for row in kept] if columns.has_patient else None,
        rows=[row.number for row in kept],
        skipped=problems,
        notes=[*table.notes, *(f"note: {warning}" for warning in table.warnings + warnings)],
        patient_ids=reading.patient_ids,
        exams=exams,
    )


def _middle(exam: Exam) -> ImageAddress:
    return exam.place(CENTRE.choose(exam)[0]).image


Contents = dict[ImageAddress, list[Content]]
"""What cells name: a B-scan, a volume, a folder."""


def _why_left_out(
    table: PairTable, found: Sequence[Problem], grouped: bool
) -> tuple[list[tuple[int, str]], Contents]:
    """Say of each row that cannot be used why, by its number; and what rows of exams name."""
    reasons: dict[int, str] = {}
    for problem in found:
        if problem.left_out:
            detail = f" ({problem.detail})" if problem.detail else ""
            reason = problem.detail if problem.role == "row" else problem.kind + detail
            reasons.setdefault(problem.index, reason)
    looked_at = [i for i in range(len(table.rows)) if i not in reasons]
    looks = look_at_each(
        [table.rows[i].image for i in looked_at],
        contents_of if grouped else why_unusable,
        "checking images",
    )
    for index in looked_at:
        row = table.rows[index]
        unclear = row.unclear or looks[row.image]
        if isinstance(unclear, str):
            reasons[index] = unclear
    contents = {image: look for image, look in looks.items() if isinstance(look, list)}
    return [(table.rows[index].number, reasons[index]) for index in sorted(reasons)], contents


def read_splits(
    train_csv: Path,
    val_csv: Path | None = None,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    image_root: Path | None = None,
    columns: Columns | None = None,
    on_bad_row: OnBadRow = "error",
    reading: Reading | None = None,
) -> tuple[Manifest, Manifest]:
    """Read and check the pairs to train on and those to validate on.

    Without ``val_csv``, a share of the patients is split off. The rest is as
    :func:`read_manifest` takes it.

    Raises:
        InputError: If a table cannot be used, or a patient is on both sides.
    """
    columns, reading = columns or Columns(), reading or Reading()
    paths = [train_csv] if val_csv is None else [train_csv, val_csv]
    tables = read_whole(paths, columns, image_root, reading)
    train, *others = [_checked(table, columns, on_bad_row, reading) for table in tables]
    patients = [name for part in (train, *others) for name in part.patients or ()]
    if note := describe_dashes(patients):
        train.notes.append(f"note: {note}")
    if not others:
        train, validation = split_by_patient(train, val_fraction, seed)
    else:
        validation = others[0]
    require_disjoint_patients(train, validation)
    return train, validation


def split_by_patient(manifest: Manifest, fraction: float, seed: int) -> tuple[Manifest, Manifest]:
    """Split pairs into a training and a validation part that share no patient.

    Where the user declared that patients are not known, each pair stands for itself. The share of
    the patients for validation is rounded up; a patient is left on each side.

    Raises:
        InputError: If there are fewer than two patients.
    """
    patients = manifest.patients
    groups = [str(row) for row in manifest.rows] if patients is None else patients
    train, validation = split_groups(groups, fraction, seed, manifest.source)
    return manifest.select(train), manifest.select(validation)


def split_groups(
    groups: Sequence[str], fraction: float, seed: int, source: Path | str
) -> tuple[list[int], list[int]]:
    """Split positions into two parts that share no group; :func:`split_by_patient` says how.

    Raises:
        InputError: If there are fewer than two groups; the message names their ``source``.
    """
    count = len(set(groups))
    if count < 2:
        raise InputError(
            f"{source} cannot be split by patient",
            got="a single patient",
            expected="at least two, one of them for validation",
            remedy="give a second CSV with --val_csv",
        )
    held_out = min(math.ceil(fraction * count), count - 1)
    # scikit-learn's GroupShuffleSplit draws so; to import it takes longer than to read the table.
    owner = np.unique(groups, return_inverse=True)[1]
    drawn = np.random.RandomState(seed).permutation(count)[:held_out]
    is_held_out = np.isin(owner, drawn)
    return np.flatnonzero(~is_held_out).tolist(), np.flatnonzero(is_held_out).tolist()


def require_contrast(train: int, validation: int) -> None:
    """Make sure that each part has pairs enough to contrast.

    Raises:
        InputError: If one has fewer than two.
    """
    for part, size in (("training", train), ("validation", validation)):
        if size < 2:
            raise InputError(
                f"the {part} part is too small",
                got=f"{size} pair{'s' if size != 1 else ''}",
                expected="at least two: a batch of one has nothing to contrast",
                remedy="more pairs or patients, or another --val_fraction",
            )


def require_disjoint_patients(train: Manifest, validation: Manifest) -> None:
    """Make sure that no patient is on both sides.

    Raises:
        InputError: If one is; the message gives row numbers, never a patient.
    """
    if train.patients is None or validation.patients is None:
        return
    ids = train.patient_ids
    shared = shared_patients(validation.patients, train.patients, ids)
    if not shared:
        return
    rows = [
        str(row)
        for row, patient in zip(validation.rows, validation.patients, strict=True)
        if patient in shared
    ]
    alike = len(shared - set(train.patients))
    written = (
        f"; {alike} of them are written in another way there, which differs in case, zeros, blanks"
        " or decimals alone"
    )
    raise InputError(
        "patients are on both sides of the split",
        got=f"{len(shared)} patients of {validation.source} are in {train.source} too, in rows "
        + shorten(rows)
        + (written if alike else ""),
        expected="every patient in one of the two files",
        remedy="remove these rows, or leave out --val_csv and let --val_fraction split"
        + ("; --patient_ids exact, if these are different persons" if alike else ""),
    )
