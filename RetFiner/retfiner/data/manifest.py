"""The table of image-report pairs: read, checked row by row, and split by patient."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit
from tqdm import tqdm

from retfiner.common.errors import InputError, shorten

OnBadRow = Literal["error", "skip"]
NO_PATIENT_COLUMN = "none"
PLACEHOLDERS = frozenset({"", "nan", "none", "null", "n/a", "na", "-"})


@dataclass(frozen=True)
class Manifest:
    """Image-report pairs that were checked.

    Attributes:
        source: The CSV they came from.
        images: Paths of the images.
        reports: Their reports.
        patients: Their patients, or None where the user said there is no such column.
        rows: Their row numbers in the CSV, the header being row 1, as a spreadsheet counts.
        skipped: Row number and reason of each row that was left out.
    """

    source: Path
    images: list[Path]
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
    image_column: str = "image",
    report_column: str = "report",
    patient_column: str = "patient_id",
    on_bad_row: OnBadRow = "error",
) -> Manifest:
    """Read a CSV of image-report pairs and check every row before anything is built.

    Args:
        path: The CSV, UTF-8, with a header.
        image_root: Folder the image paths are relative to; by default the CSV's own.
        image_column: Column with the path of the image.
        report_column: Column with the report.
        patient_column: Column with the patient, or ``none`` to declare that there is none.
        on_bad_row: ``error`` stops at rows that cannot be used; ``skip`` leaves them out.

    Raises:
        InputError: If the file or a column is missing, if a row cannot be used and ``on_bad_row``
            is ``error``, or if no row is left.
    """
    columns = {"image": image_column, "report": report_column}
    if patient_column != NO_PATIENT_COLUMN:
        columns["patient"] = patient_column
    table = _read_csv(path, list(columns.values()))
    root = path.parent if image_root is None else image_root
    images = [root / name.strip() for name in table[image_column]]
    reports = [" ".join(report.split()) for report in table[report_column]]
    patients = None
    if patient_column != NO_PATIENT_COLUMN:
        patients = [patient.strip() for patient in table[patient_column]]

    problems = _find_problems(list(table[image_column]), images, reports, patients)
    if problems and on_bad_row == "error":
        raise InputError(
            f"{len(problems)} of {len(table)} rows of {path} cannot be used",
            got="\n            ".join(f"row {row}: {reason}" for row, reason in problems[:8])
            + (f"\n            ... and {len(problems) - 8} more" if len(problems) > 8 else ""),
            expected="an existing image, a report with words and a patient in every row",
            remedy="mend these rows, or give --on_bad_row skip to leave them out",
        )
    bad = {row for row, _ in problems}
    every = Manifest(path, images, reports, patients, list(range(2, len(table) + 2)), problems)
    kept = every.select([i for i, row in enumerate(every.rows) if row not in bad])
    if not len(kept):
        raise InputError(
            f"no row of {path} can be used",
            got=problems[0][1] if problems else "a header without rows",
            expected="at least two image-report pairs",
        )
    return kept


def read_reports(path: Path, report_column: str = "report") -> list[str]:
    """Read the reports of a CSV alone; images are not looked at.

    Args:
        path: The CSV, UTF-8, with a header.
        report_column: Column with the report.

    Raises:
        InputError: If the file or the column is missing.
    """
    return [" ".join(report.split()) for report in _read_csv(path, [report_column])[report_column]]


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"there is no file {path}", expected="a CSV of image-report pairs")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(
                f"{path} lacks a column",
                got=f"columns {', '.join(header) or 'none'}",
                expected=f"a column {', '.join(missing)}",
                remedy="name yours with --image_column, --report_column, --patient_column"
                f" (--patient_column {NO_PATIENT_COLUMN} if patients are not known)",
            )
        return pd.read_csv(
            path, dtype=str, usecols=columns, keep_default_na=False, encoding="utf-8-sig"
        ).fillna("")  # short lines leave holes that keep_default_na does not fill
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8",
            got=f"byte {error.start} is {error.object[error.start : error.start + 1]!r}",
            remedy="save it as CSV UTF-8, for example: iconv -f latin1 -t utf-8 in.csv > out.csv",
        ) from error
    except (pd.errors.ParserError, csv.Error) as error:
        raise InputError(
            f"{path} is not a well-formed CSV",
            got=str(error),
            remedy='put reports that hold a comma between double quotes: "..."',
        ) from error


def _find_problems(
    names: list[str], images: list[Path], reports: list[str], patients: list[str] | None
) -> list[tuple[int, str]]:
    problems = []
    with ThreadPoolExecutor(8) as pool:
        progress = tqdm(
            pool.map(why_unusable, images, chunksize=256),
            total=len(images),
            desc="checking images",
            unit="image",
            leave=False,
            disable=len(images) < 500 or not sys.stderr.isatty(),
        )
        for index, reason in enumerate(progress):
            if not names[index].strip():
                reason = "the image column is empty"
            elif reports[index].casefold() in PLACEHOLDERS:
                reason = "the report is empty"
            elif patients is not None and patients[index].casefold() in PLACEHOLDERS:
                reason = "the patient is empty"
            if reason is not None:
                problems.append((index + 2, reason))
    return problems


JPEG_START, PNG_START, PNG_END = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def why_unusable(path: Path) -> str | None:
    """Say why an image file cannot be used, from its first and last bytes alone, or None.

    Reading two small pieces takes a fraction of a millisecond, so that a whole collection can be
    checked before training; damage in the middle of a file shows only when it is decoded.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = file.seek(0, 2)
            file.seek(max(0, size - 64))
            end = file.read()
    except FileNotFoundError:
        return f"there is no file {path}"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if size == 0:
        return f"{path} is empty"
    is_cut = (start == PNG_START and PNG_END not in end) or (
        start.startswith(JPEG_START) and b"\xff\xd9" not in end
    )
    return f"{path} ends too early: the file is cut" if is_cut else None


def split_by_patient(manifest: Manifest, fraction: float, seed: int) -> tuple[Manifest, Manifest]:
    """Split pairs into a training and a validation part that share no patient.

    Args:
        manifest: The pairs.
        fraction: Share of the patients for validation, in (0, 1).
        seed: Which patients that are.

    Raises:
        InputError: If there are fewer than two patients.
    """
    groups = manifest.patients
    if groups is None:  # the user declared that patients are not known: each pair for itself
        groups = [str(row) for row in manifest.rows]
    if len(set(groups)) < 2:
        raise InputError(
            f"{manifest.source} cannot be split by patient",
            got="a single patient",
            expected="at least two, one of them for validation",
            remedy="give a second CSV with --val_csv",
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    train, validation = next(splitter.split(np.zeros(len(groups)), groups=groups))
    return manifest.select(train.tolist()), manifest.select(validation.tolist())


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
