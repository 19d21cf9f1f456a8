"""Flags that say how a table of image-report pairs is read, of ``train.py`` and the check of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.numbers import PositiveFloat
from retfiner.data.after_cut import MAX_ALIKE


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Table."""

    image_root: Path | None = flag(
        "folder the image paths are relative to; by default the CSV's", None
    )
    image_column: str = flag(
        "column with the image's path; scan.e2e#12 is B-scan 12 of a volume, from 0", "image"
    )
    report_column: str = flag("column with the report", "report")
    patient_column: str = flag(
        "column with the patient; none declares that there is none", "patient_id"
    )
    slice_column: str | None = flag(
        "column with the B-scan's index in a volume, from 0, or none; by default slice, where there"
        " is such a column",
        None,
    )
    first_slice: Literal[0, 1] | None = flag(
        "number of a volume's first B-scan in it; by default 0, if nothing speaks against it",
        None,
    )
    patient_ids: Literal["normalised", "exact"] = flag(
        "are 1, 01 and 1.0, or P1 and p1, one patient",
        "normalised",
    )
    table_encoding: str | None = flag(
        "encoding of the CSV, as cp1252 or gb18030; by default it is found out", None
    )
    strip_common: bool = flag("take off what most reports begin with: a letterhead", False)
    not_in: Path | None = flag(
        "folder of probing data sets whose pictures and patients must not be trained on", None
    )
    max_alike: PositiveFloat = flag(
        "share of the different reports that the cut at max_text_tokens may make one; rows that"
        " repeat a report do not count",
        MAX_ALIKE,
    )
