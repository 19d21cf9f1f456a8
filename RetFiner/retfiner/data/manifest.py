"""The table of image-report pairs: read, checked row by row, and split by patient."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from retfiner.common.errors import InputError, shorten
from retfiner.data.table import read_table
from retfiner.vision.images import AS_SAID, ImageAddress, ReadAs, why_unusable

OnBadRow = Literal["error", "skip"]
NO_PATIENT_COLUMN = "none"
SLICE_COLUMN, NO_SLICE_COLUMN = "slice", "none"
CHUNK = 256
MISSING = frozenset({"", "nan", "none", "null", "n/a", "na", "-"})
"""How tables write that there is no value, in lower case."""
NO_REPORT = MISSING | {
    "blank", "dictated", "empty", "missing", "n.a.", "no report", "not available",
    "not dictated", "not reported", "pending", "report pending", "see above", "see below",
    "see previous", "see previous report", "see report", "siehe oben", "siehe vorbefund",
    "tba", "tbd", "test", "to follow", "unknown",
}  # fmt: skip
"""How people write that there is no report; training itself refuses :data:`MISSING` alone."""


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    ``patient`` may be ``none``, to declare that patients are not known. ``slice`` holds the index
    of the B-scan in a volume, from 0, or empty cells; None is ``slice``, where there is such a
    column; ``none`` leaves it alone. ``read_as`` says what image files leave open, where
    a row does not.
    """

    image: str = "image"
    report: str = "report"
    patient: str = "patient_id"
    split: str | None = None
    slice: str | None = None
    read_as: ReadAs = AS_SAID

    @property
    def has_patient(self) -> bool:
        """Whether there is a column with the patient."""
        return self.patient != NO_PATIENT_COLUMN

    @property
    def required(self) -> list[str]:
        """The columns that have to be there."""
        patient = self.patient if self.has_patient else None
        index = None if self.slice == NO_SLICE_COLUMN else self.slice
        optional = (patient, self.split, index)
        return [self.image, self.report, *(name for name in optional if name is not None)]


@dataclass(frozen=True)
class PairRow:
    """A row of a table of pairs, not yet checked; white space around and within is tidied.

    The number is a spreadsheet's: the header is row 1. ``patient`` is None where the user said
    there is no such column, and ``side`` is empty where no split is given. ``broken`` says why the
    fields cannot be told apart, and ``unclear`` why it cannot be told which image is meant.
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
class Manifest:
    """Image-report pairs that were checked.

    ``patients`` is None where the user said there is no such column; ``rows`` are numbers in the
    CSV, the header being row 1, as a spreadsheet counts; ``skipped`` has number and reason of each
    row that was left out.
    """

    source: Path
    images: list[ImageAddress]
    reports: list[str]
    patients: list[str] | None
    rows: list[int]
    skipped: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def patient_count(self) -> int | None:
        """How many patients there are; None where they are not known."""
        return None if self.patients is None else len(set(self.patients))

    def select(self, indices: Sequence[int]) -> Manifest:
        """Return the pairs at ``indices``, in that order."""
        return Manifest(
            source=self.source,
            images=[self.images[i] for i in indices],
            reports=[self.reports[i] for i in indices],
            patients=None if self.patients is None else [self.patients[i] for i in indices],
            rows=[self.rows[i] for i in indices],
            skipped=self.skipped,
        )


def read_manifest(
    path: Path,
    image_root: Path | None = None,
    *,
    image_column: str = "image",
    report_column: str = "report",
    patient_column: str = "patient_id",
    slice_column: str | None = None,
    on_bad_row: OnBadRow = "error",
) -> Manifest:
    """Read a CSV of image-report pairs and check every row before anything is built.

    Args:
        path: The CSV, UTF-8, with a header.
        image_root: Folder the image paths are relative to; by default the CSV's own.
        image_column: Column with the path of the image; ``scan.e2e#12`` is B-scan 12 of a volume.
        report_column: Column with the report.
        patient_column: Column with the patient, or ``none`` to declare that there is none.
        slice_column: Column with the index of the B-scan; see :class:`Columns`.
        on_bad_row: ``error`` stops at rows that cannot be used; ``skip`` leaves them out.

    Raises:
        InputError: If the file or a column is missing, if a row cannot be used and ``on_bad_row``
            is ``error``, or if no row is left.
    """
    columns = Columns(image_column, report_column, patient_column, slice=slice_column)
    rows = read_pairs(path, columns, image_root)
    problems = _find_problems(rows)
    if problems and on_bad_row == "error":
        raise InputError(
            f"{len(problems)} of {len(rows)} rows of {path} cannot be used",
            got="\n            ".join(f"row {row}: {reason}" for row, reason in problems[:8])
            + (f"\n            ... and {len(problems) - 8} more" if len(problems) > 8 else ""),
            expected="an existing image, a report with words and a patient in every row",
            remedy="mend these rows; --image_root names the folder that paths are relative to; "
            "--on_bad_row skip leaves such rows out",
        )
    bad = {row for row, _ in problems}
    kept = [row for row in rows if row.number not in bad]
    if not kept:
        raise InputError(
            f"no row of {path} can be used",
            got=problems[0][1] if problems else "a header without rows",
            expected="at least two image-report pairs",
        )
    return Manifest(
        source=path,
        images=[row.image for row in kept],
        reports=[row.report for row in kept],
        patients=[str(row.patient) for row in kept] if columns.has_patient else None,
        rows=[row.number for row in kept],
        skipped=problems,
    )


def read_pairs(path: Path, columns: Columns, image_root: Path | None = None) -> list[PairRow]:
    """Read a CSV of image-report pairs; nothing is checked but that it is one.

    Raises:
        InputError: If the file or a column is missing, or the file is no well-formed CSV in UTF-8.
    """
    optional = [SLICE_COLUMN] if columns.slice is None else []
    numbers, cells, broken = read_table(path, columns.required, optional)
    names = [name.strip() for name in cells[columns.image]]
    slices = cells.get(columns.slice or SLICE_COLUMN)
    patients = cells[columns.patient] if columns.has_patient else None
    sides = None if columns.split is None else cells[columns.split]
    rows = []
    for i, number in enumerate(numbers):
        cell = "" if slices is None else slices[i]
        image, unclear = locate_image(image_root or path.parent, names[i], cell)
        image = replace(image, read_as=image.read_as.over(columns.read_as))
        rows.append(
            PairRow(
                file=path,
                number=number,
                name=names[i],
                image=image,
                report=" ".join(cells[columns.report][i].split()),
                patient=None if patients is None else patients[i].strip(),
                side="" if sides is None else sides[i].strip(),
                broken=broken.get(number),
                unclear=unclear,
            )
        )
    return rows


def read_reports(path: Path, report_column: str = "report") -> list[str]:
    """Read the reports of a CSV alone; images are not looked at.

    Raises:
        InputError: If the file or the column is missing, or a row has more fields than the header.
    """
    table = read_table(path, [report_column])
    if table.broken:
        row, reason = next(iter(table.broken.items()))
        raise InputError(
            f"{len(table.broken)} rows of {path} cannot be used", got=f"row {row}: {reason}"
        )
    return [" ".join(report.split()) for report in table.cells[report_column]]


def locate_image(root: Path, name: str, slice_cell: str) -> tuple[ImageAddress, str | None]:
    """Return the address of an image, and why it cannot be understood if it cannot.

    The name is ``scan.png`` or ``scan.e2e#12``; the cell holds the B-scan's index, from 0, or none.
    """
    image = ImageAddress(root / name)
    try:
        image = ImageAddress.parse(root / name)
        index = _slice_index(slice_cell)
        if index is not None and image.index not in (None, index):
            raise InputError(f"{name} says one B-scan and the slice column says {index}")
        return (image if index is None else replace(image, index=index)), None
    except InputError as error:
        return image, " ".join(str(error).split())


def _slice_index(cell: str) -> int | None:
    """Read a cell of the slice column; a table with gaps may have been written with 12.0 for 12."""
    text = cell.strip()
    if text.casefold() in MISSING:
        return None
    number = text.removesuffix(".0")
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise InputError(f"the slice is {text!r}", expected="a whole number, the first being 0")
    return int(number)


def _find_problems(rows: list[PairRow]) -> list[tuple[int, str]]:
    reasons = _why_unusable([row.image for row in rows])
    problems = ((row.number, _problem(row, why)) for row, why in zip(rows, reasons, strict=True))
    return [(number, problem) for number, problem in problems if problem is not None]


def _problem(row: PairRow, image_problem: str | None) -> str | None:
    if row.broken is not None:
        return row.broken
    if not row.name:
        return "the image column is empty"
    if row.unclear is not None:
        return row.unclear
    if row.report.casefold() in MISSING:
        return "the report is empty"
    if row.patient is not None and row.patient.casefold() in MISSING:
        return "the patient is empty"
    return image_problem


def _why_unusable(images: list[ImageAddress]) -> list[str | None]:
    """Say of each image why it cannot be used; one that is named often is looked at once."""
    distinct = list(dict.fromkeys(images))
    # A task a file would cost more than the file: a thread takes a few hundred at a time.
    chunks = [distinct[i : i + CHUNK] for i in range(0, len(distinct), CHUNK)]
    reasons: dict[ImageAddress, str | None] = {}
    is_shown = len(distinct) >= 500 and sys.stderr.isatty()
    with (
        ThreadPoolExecutor(8) as pool,
        tqdm(total=len(distinct), desc="checking images", unit="image", leave=False,
             disable=not is_shown) as progress,
    ):  # fmt: skip
        checked = pool.map(lambda chunk: [why_unusable(image) for image in chunk], chunks)
        for chunk, found in zip(chunks, checked, strict=True):
            reasons.update(zip(chunk, found, strict=True))
            progress.update(len(chunk))
    return [reasons[image] for image in images]


def read_splits(
    train_csv: Path,
    val_csv: Path | None = None,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    **columns: Any,
) -> tuple[Manifest, Manifest]:
    """Read and check the pairs to train on and those to validate on.

    Without ``val_csv``, a share of the patients is split off. ``columns`` are the folder, the
    columns and what to do with bad rows, as :func:`read_manifest` takes them.

    Raises:
        InputError: If a table cannot be used, or a patient is on both sides.
    """
    train = read_manifest(train_csv, **columns)
    if val_csv is None:
        train, validation = split_by_patient(train, val_fraction, seed)
    else:
        validation = read_manifest(val_csv, **columns)
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
    from sklearn.model_selection import GroupShuffleSplit  # a second: not for a wrong path

    held_out = min(math.ceil(fraction * count), count - 1)
    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=seed)
    train, validation = next(splitter.split(np.zeros(len(groups)), groups=groups))
    return train.tolist(), validation.tolist()


def require_disjoint_patients(train: Manifest, validation: Manifest) -> None:
    """Make sure that no patient is on both sides.

    Raises:
        InputError: If one is; the message gives row numbers, never a patient.
    """
    if train.patients is None or validation.patients is None:
        return
    shared = set(train.patients) & set(validation.patients)
    if shared:
        rows = [
            str(row)
            for row, patient in zip(validation.rows, validation.patients, strict=True)
            if patient in shared
        ]
        raise InputError(
            "patients are on both sides of the split",
            got=f"{len(shared)} patients of {validation.source} are in {train.source} too, in rows "
            + shorten(rows),
            expected="every patient in one of the two files",
            remedy="remove these rows, or leave out --val_csv and let --val_fraction split",
        )
