"""Whose image it is, as far as a table or the file's name says."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from retfiner.common.errors import InputError

SPLIT_TABLE = "split.csv"
"""Beside the splits of a data set; columns ``image`` and ``patient`` are read, others left."""

_RULES = (
    re.compile(r"([A-Za-z]+\d+)_(?:OD|OS)(?:_.*)?"),  # P0001_OD_v1: a patient, an eye, a visit
    re.compile(r"(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+(?:_.*)?"),  # Kermany; ids recur across classes
    re.compile(r"(?:amd|dme|erm|no|rao|rvo|vid)_(\d+)_\d+", re.IGNORECASE),  # OCTDL
)


def patient_in_name(stem: str) -> str | None:
    """Read the patient off an image's name without suffix, None where no known rule fits."""
    for rule in _RULES:
        match = rule.fullmatch(stem)
        if match:
            return match[1]
    return None


def read_split_table(data_set: Path) -> dict[str, str]:
    """Read the patients of ``split.csv``, where the data set has one.

    Returns:
        Patient by image (the path as written in the table); rows without a patient are left out.

    Raises:
        InputError: If the table lacks a column or cannot be read.
    """
    path = data_set / SPLIT_TABLE
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            if not {"image", "patient"} <= set(columns):
                raise InputError(
                    f"{path} lacks a column",
                    got=", ".join(columns) or "an empty file",
                    expected="image and patient among its columns",
                    remedy="prepare the data set again, or delete the table",
                )
            return {row["image"]: row["patient"] for row in reader if row["patient"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV in UTF-8", got=error) from error


def patient_of(path: Path, data_set: Path, table: Mapping[str, str]) -> str | None:
    """Find whose ``<data_set>/<split>/<class>/<name>`` is, by the name where there is no table.

    A table may name images by their path below the data set, by class and name, or by name alone.
    """
    if not table:
        return patient_in_name(path.stem)
    split, class_name, name = path.relative_to(data_set).parts
    for key in (f"{split}/{class_name}/{name}", f"{class_name}/{name}", name):
        if key in table:
            return table[key]
    return None
