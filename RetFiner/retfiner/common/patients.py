"""Whose image it is, of which eye and volume, as far as a table or the file's name says."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from retfiner.common.errors import InputError, shorten
from retfiner.common.eyes import eye_of
from retfiner.common.patient_names import one_spelling, tidy
from retfiner.common.placeholders import is_placeholder

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

OLDEST = 125
_AGE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(y|yrs?|years?|j|jahre?|m|w|d)?\.?", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-./]\d|\d[-./]\d{1,2}[-./]\d")
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
    """Read the rows of ``split.csv``, where the data set has one, without blanks around cells.

    A patient that is a placeholder (``nan``, ``unknown``) is none.

    Raises:
        InputError: As above, and if two rows of an image say different things.
    """
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
            rows = [row for row in map(_tidied, reader) if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV in UTF-8", got=error) from error
    by_image: dict[str, dict[str, str]] = {}
    for row in rows:
        first = by_image.setdefault(row["image"], row)
        if differing := [name for name in row if row[name] != first.get(name)]:
            told = (f"{name} {first.get(name)!r} and {row[name]!r}" for name in differing)
            raise InputError(f"{path} has two rows of {row['image']} that differ",
                             got=", ".join(told), expected="a row an image")  # fmt: skip
    return rows


def _tidied(row: Mapping[str | None, str | None]) -> dict[str, str]:
    """Take off blanks around cells; patients that are placeholders, and backslashes of Windows."""
    cells = {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)}
    place = cells["image"].replace("\\", "/").removeprefix("./")
    patient = tidy(cells["patient"])
    return cells | {"image": place, "patient": "" if is_placeholder(patient) else patient}


def same_people(owners: Sequence[Owner]) -> tuple[list[Owner], list[str]]:
    """Give patients whose names differ in case, zeros, blanks or decimals alone one name.

    To take them for several would let a person be trained on and tested with. Gives the owners, and
    a note where there are such.
    """
    names = one_spelling([owner.patient for owner in owners])
    again = {o.patient for o, name in zip(owners, names, strict=True) if o.patient != name}
    told = sorted({name for o, name in zip(owners, names, strict=True) if o.patient in again})
    note = (
        f"{len(told)} patients are written in several ways that differ in case, zeros, blanks or "
        f"decimals alone ({shorten(told, 3)}): each is taken for one person."
    )
    return [o._replace(patient=n) for o, n in zip(owners, names, strict=True)], [note] * bool(told)


def check_images(paths: Sequence[Path], data_set: Path, table: Mapping[str, object]) -> list[str]:
    """See that each row of a table is of one image, and say how many are of none.

    Raises:
        InputError: If a row is of several images, as a file's name that several folders have, or
            the table of none at all.
    """
    of_row: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if (key := _key_of(path, data_set, table)) is not None:
            of_row[key].append(path.relative_to(data_set).as_posix())
    several = {key: found for key, found in of_row.items() if len(found) > 1}
    name = f"{data_set / SPLIT_TABLE}"
    if several:
        key, found = next(iter(several.items()))
        raise InputError(
            f"{len(several)} rows of {name} are of several images each",
            got=f"{key}: {shorten(found, 3)}",
            expected="the path of one image below the data set, as train/AMD/001.png",
        )
    if table and paths and not of_row:
        raise InputError(
            f"{name} names none of the {len(paths)} images beside it",
            got=shorten(list(table), 3),
            expected=f"paths such as {paths[0].relative_to(data_set).as_posix()}",
            remedy="correct the column image, or delete the table: names then say whose they are",
        )
    left = [key for key in table if key not in of_row]
    return [f"{len(left)} rows of {SPLIT_TABLE} are of no image: {shorten(left, 3)}."] * bool(left)


def in_several_classes(pairs: Iterable[tuple[str, Hashable]]) -> list[str]:
    """Name the patients, of pairs with a class, who have images of several classes."""
    classes: dict[str, set[Hashable]] = defaultdict(set)
    for patient, label in pairs:
        classes[patient].add(label)
    return sorted(name for name, labels in classes.items() if name and len(labels) > 1)


def age_group(age: str) -> str:
    """Name the age group of a number of years, as tables and DICOM (``067Y``) write it.

    What cannot be an age (a code such as -9 or 999, a date of birth) is unknown: empty. Other
    words stay as they are.
    """
    number = _AGE.fullmatch(age.strip())
    if number is None:
        told = _NUMBER.fullmatch(age.strip()) or _DATE.search(age)
        return "" if told or age.strip().casefold() in ("nan", "inf") else age
    years = float(number[1].replace(",", "."))
    years = years / {"m": 12, "w": 52, "d": 365}.get((number[2] or "y")[0].casefold(), 1)
    ends = [*(f"to {start - 1}" for start in AGES[1:]), "or more"]
    groups = [f"{s} {end}" for s, end in zip(AGES, ends, strict=True) if years >= s]
    return groups[-1] if years <= OLDEST else ""


def _owner(row: Mapping[str, str | None]) -> Owner:
    source, _, scan = (row.get("source") or "").partition("#")  # file#k is B-scan k of a volume
    eye = row.get("eye") or owner_in_name(Path(row["image"] or "").stem).eye
    eye = eye_of(eye) or eye
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
    key = _key_of(path, data_set, table)
    return None if key is None else table[key]


def _key_of(path: Path, data_set: Path, table: Mapping[str, object]) -> str | None:
    within = path.relative_to(data_set)
    keys = (within.as_posix(), within.relative_to(within.parts[0]).as_posix(), path.name)
    return next((key for key in keys if key in table), None)
