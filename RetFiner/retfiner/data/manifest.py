"""The table of image-report pairs: read, checked row by row, and split by patient."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from retfiner.common.errors import InputError, shorten
from retfiner.data.table import read_table
from retfiner.vision.images import ImageAddress, why_unusable

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

    Attributes:
        image: Column with the path of the image.
        report: Column with the report.
        patient: Column with the patient, or ``none``.
        split: Column with the side of the split, or None.
        slice: Column with the index of the B-scan in a volume, from 0, or empty cells; None is
            ``slice``, where there is such a column; ``none`` leaves it alone.
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
    def required(self) -> list[str]:
        """The columns that have to be there."""
        patient = self.patient if self.has_patient else None
        index = None if self.slice == NO_SLICE_COLUMN else self.slice
        optional = (patient, self.split, index)
        return [self.image, self.report, *(name for name in optional if name is not None)]


class PairTable(NamedTuple):
    """The rows of a table of pairs, not yet checked; white space around and within is tidied.

    Attributes:
        rows: Row numbers, the header being row 1, as a spreadsheet counts.
        names: The image column's cells.
        images: The images they stand for: files, or B-scans of volumes.
        reports: The reports.
        patients: The patients, or None where the user said there is no such column.
        sides: The split column's cells, or None where there is none.
        broken: Why a row's fields cannot be told apart, by row number.
        unclear: Why it cannot be told which image a row stands for, by position.
    """

    rows: list[int]
    names: list[str]
    images: list[ImageAddress]
    reports: list[str]
    patients: list[str] | None
    sides: list[str] | None
    broken: dict[int, str]
    unclear: dict[int, str]


@dataclass(frozen=True)
class Manifest:
    """Image-report pairs that were checked.

    Attributes:
        source: The CSV they came from.
        images: The images: files, and in volumes the index of the B-scan.
        reports: Their reports.
        patients: Their patients, or None where the user said there is no such column.
        rows: Their row numbers in the CSV, the header being row 1, as a spreadsheet counts.
        skipped: Row number and reason of each row that was left out.
    """

    source: Path
    images: list[ImageAddress]
    reports: list[str]
    patients: list[str] | None
    rows: list[int]
    skipped: list[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.images)

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
    table = read_pairs(path, columns, image_root)
    problems = _find_problems(table)
    if problems and on_bad_row == "error":
        raise InputError(
            f"{len(problems)} of {len(table.rows)} rows of {path} cannot be used",
            got="\n            ".join(f"row {row}: {reason}" for row, reason in problems[:8])
            + (f"\n            ... and {len(problems) - 8} more" if len(problems) > 8 else ""),
            expected="an existing image, a report with words and a patient in every row",
            remedy="mend these rows; --image_root names the folder that paths are relative to; "
            "--on_bad_row skip leaves such rows out",
        )
    bad = {row for row, _ in problems}
    every = Manifest(path, table.images, table.reports, table.patients, table.rows, problems)
    kept = every.select([i for i, row in enumerate(every.rows) if row not in bad])
    if not len(kept):
        raise InputError(
            f"no row of {path} can be used",
            got=problems[0][1] if problems else "a header without rows",
            expected="at least two image-report pairs",
        )
    return kept


def read_pairs(path: Path, columns: Columns, image_root: Path | None = None) -> PairTable:
    """Read a CSV of image-report pairs; nothing is checked but that it is one.

    Args:
        path: The CSV, UTF-8, with a header.
        columns: What its columns are called.
        image_root: Folder the image paths are relative to; by default the CSV's own.

    Raises:
        InputError: If the file or a column is missing, or the file is no well-formed CSV in UTF-8.
    """
    optional = [SLICE_COLUMN] if columns.slice is None else []
    rows, cells, broken = read_table(path, columns.required, optional)
    names = [name.strip() for name in cells[columns.image]]
    slices = cells.get(columns.slice or SLICE_COLUMN, [""] * len(names))
    images, unclear = locate_images(image_root or path.parent, names, slices)
    return PairTable(
        rows=rows,
        names=names,
        images=images,
        reports=[" ".join(report.split()) for report in cells[columns.report]],
        patients=[p.strip() for p in cells[columns.patient]] if columns.has_patient else None,
        sides=None if columns.split is None else [side.strip() for side in cells[columns.split]],
        broken=broken,
        unclear=unclear,
    )


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


def locate_images(
    root: Path, names: Sequence[str], slices: Sequence[str]
) -> tuple[list[ImageAddress], dict[int, str]]:
    """Turn the cells that say which image into addresses.

    Args:
        root: Folder that relative paths start from.
        names: Paths, as ``scan.png`` or ``scan.e2e#12``.
        slices: Index of the B-scan, from 0, or an empty cell.

    Returns:
        An address for each row, and by position why those that cannot be understood cannot.
    """
    images, unclear = [], {}
    for position, (name, cell) in enumerate(zip(names, slices, strict=True)):
        image = ImageAddress(root / name)
        try:
            image = ImageAddress.parse(root / name)
            index = _slice_index(cell)
            if index is not None:
                if image.index not in (None, index):
                    raise InputError(f"{name} says one B-scan and the slice column says {index}")
                image = replace(image, index=index)
        except InputError as error:
            unclear[position] = " ".join(str(error).split())
        images.append(image)
    return images, unclear


def _slice_index(cell: str) -> int | None:
    """Read a cell of the slice column; a table with gaps may have been written with 12.0 for 12."""
    text = cell.strip()
    if text.casefold() in MISSING:
        return None
    number = text.removesuffix(".0")
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise InputError(f"the slice is {text!r}", expected="a whole number, the first being 0")
    return int(number)


def _find_problems(table: PairTable) -> list[tuple[int, str]]:
    problems = []
    for index, (row, reason) in enumerate(
        zip(table.rows, _why_unusable(table.images), strict=True)
    ):
        problem = reason
        if row in table.broken:
            problem = table.broken[row]
        elif not table.names[index]:
            problem = "the image column is empty"
        elif index in table.unclear:
            problem = table.unclear[index]
        elif table.reports[index].casefold() in MISSING:
            problem = "the report is empty"
        elif table.patients is not None and table.patients[index].casefold() in MISSING:
            problem = "the patient is empty"
        if problem is not None:
            problems.append((row, problem))
    return problems


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

    Args:
        train_csv: The table.
        val_csv: A table for validation; without one, patients are split off.
        val_fraction: Share of the patients split off.
        seed: What the split depends on.
        columns: Folder, columns and what to do with bad rows, as :func:`read_manifest` takes them.

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

    Where the user declared that patients are not known, each pair stands for itself.

    Args:
        manifest: The pairs.
        fraction: Share of the patients for validation, in (0, 1), rounded up; a patient is left
            on each side.
        seed: Which patients that are.

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

    Args:
        groups: The patient, or whatever must stay together, of each pair.
        fraction: Share of the groups for validation.
        seed: Which groups that are.
        source: Where the pairs come from, for messages.

    Raises:
        InputError: If there are fewer than two groups.
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
