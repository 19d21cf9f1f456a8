"""Whose image it is, of which eye and volume, as far as a table or the file's name says."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from retfiner.common.errors import InputError

T = TypeVar("T")
SPLIT_TABLE = "split.csv"
"""Beside the splits of a data set; columns ``image`` and ``patient`` are read, and ``eye``,
``volume``, ``source`` and those of :data:`GROUPS` where they are there."""

_RULES = (
    re.compile(r"([A-Za-z]+\d+)_(?:OD|OS)(?:_.*)?"),  # P0001_OD_v1: a patient, an eye, a visit
    re.compile(r"(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+(?:_.*)?"),  # Kermany; ids recur across classes
    re.compile(r"(?:amd|dme|erm|no|rao|rvo|vid)_(\d+)_\d+", re.IGNORECASE),  # OCTDL
)
_EYE = re.compile(r"(?:^|_)(OD|OS)(?:_|$)")


GROUPS = ("sex", "age", "device", "race", "ethnicity")
"""Columns of the table by which subgroups are told apart."""

ABOUT = ("eye", "volume", *GROUPS)
"""Columns of the table that may be left out."""

TARGET = "target_"
"""How columns of the table begin that say what an image shows, besides its class."""

AGES = (0, 50, 65, 80)
"""Where age groups begin, in years; no finer age goes into tables of predictions."""

Unit = Literal["image", "volume", "eye", "patient"]
"""What can be scored as one."""


class Owner(NamedTuple):
    """Whose an image is, of which eye and volume, and of which groups; empty where unknown."""

    patient: str = ""
    eye: str = ""
    volume: str = ""
    sex: str = ""
    age: str = ""
    device: str = ""
    race: str = ""
    ethnicity: str = ""


def owner_in_name(stem: str) -> Owner:
    """Read the owner off an image's name without suffix, as far as a known rule fits."""
    eye = _EYE.search(stem)
    matches = (rule.fullmatch(stem) for rule in _RULES)
    patient = next((match[1] for match in matches if match), "")
    return Owner(patient, eye[1] if eye else "")


def read_split_table(data_set: Path) -> dict[str, Owner]:
    """Read the owners of ``split.csv``, where the data set has one, by image as written there.

    Raises:
        InputError: If the table lacks a column or cannot be read.
    """
    return {row["image"]: _owner(row) for row in read_split_rows(data_set)}


def read_split_rows(data_set: Path) -> list[dict[str, str]]:
    """Read the rows of ``split.csv``, where the data set has one; errors as above."""
    path = data_set / SPLIT_TABLE
    if not path.is_file():
        return []
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
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV in UTF-8", got=error) from error


def in_several_classes(pairs: Iterable[tuple[str, Hashable]]) -> list[str]:
    """Name the patients, of pairs with a class, who have images of several classes."""
    classes: dict[str, set[Hashable]] = defaultdict(set)
    for patient, label in pairs:
        classes[patient].add(label)
    return sorted(name for name, labels in classes.items() if name and len(labels) > 1)


def age_group(age: str) -> str:
    """Name the age group of a number of years; anything else stays as it is."""
    try:
        years = float(age)
    except ValueError:
        return age
    ends = [*(f"to {start - 1}" for start in AGES[1:]), "or more"]
    return [f"{s} {end}" for s, end in zip(AGES, ends, strict=True) if years >= s or not s][-1]


def _owner(row: Mapping[str, str | None]) -> Owner:
    source, _, scan = (row.get("source") or "").partition("#")  # file#k is B-scan k of a volume
    eye = row.get("eye") or owner_in_name(Path(row["image"] or "").stem).eye
    groups = {name: (row.get(name) or "").strip() for name in GROUPS}
    groups["age"] = age_group(groups["age"])
    volume = row.get("volume") or (source if scan else "")
    return Owner(row["patient"] or "", eye, volume, **groups)


def owner_of(path: Path, data_set: Path, table: Mapping[str, Owner]) -> Owner:
    """Find whose ``<data_set>/<split>/<class>/<name>`` is, by the name where there is no table.

    A table may name images by their path below the data set, below the split, or by name alone.
    Where images lie deeper, the folders between class and image that have a number in their name
    are taken for the patient's, if neither table nor image tells.
    """
    if not table:
        owner = owner_in_name(path.stem)
        below = path.relative_to(data_set).parts[2:-1]
        folders = "/".join(part for part in below if any(sign.isdigit() for sign in part))
        return owner._replace(patient=owner.patient or folders)
    return row_of(path, data_set, table) or Owner()


def row_of(path: Path, data_set: Path, table: Mapping[str, T]) -> T | None:
    """Find what a table has of ``<data_set>/<split>/<class>/<name>``, by any of the keys above."""
    within = path.relative_to(data_set)
    keys = (within.as_posix(), within.relative_to(within.parts[0]).as_posix(), path.name)
    return next((table[key] for key in keys if key in table), None)
