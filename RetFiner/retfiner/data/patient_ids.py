"""What tables say of patients: names in several spellings, and names that no patient has."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from retfiner.common.patient_names import one_spelling, patient_key

PatientIds = Literal["normalised", "exact"]

_DASHES_BETWEEN = re.compile(r"(?<=[^\W\d_])[-_./#]+(?=\d)|(?<=\d)[-_./]+(?=[^\W\d_])|^#|\.$")

ROUNDED = re.compile(r"\d[.,]\d+E[+-]?\d{1,3}|\d+(?:[.,]\d*)?E\+\d{1,3}", re.IGNORECASE)
"""A number as a spreadsheet rounds it: 1.23E+11."""
_MONTHS = (
    "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez|janv|févr|mars|avr|juin|"
    "juil|août|déc|ene|abr|ago|dic|gen|mag|giu|lug|set|ott"
)
MONTH = rf"(?:{_MONTHS})[a-zä]*\.?"
DATE = re.compile(
    r"(?:19|20)\d\d[-./]\d{1,2}[-./]\d{1,2}(?:[ T]\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?)?"
    r"|\d{1,2}[-./]\d{1,2}[-./](?:19|20)?\d\d(?: \d{1,2}:\d\d(?::\d\d)?)?"
    rf"|\d{{1,2}}[. -]+{MONTH}(?:[ -]+\d{{2,4}})?|{MONTH}[ -]+\d{{1,4}}",
    re.IGNORECASE,
)
"""A day, as spreadsheets make one of 1-3 or 01.03."""
_WORDS = re.compile(r"[^\W\d_]{2,}")
_EYE = re.compile(r"(?<=[\d_\s-])(?:OD|OS|RE|LE|R|L|RA|LA|right|left|rechts|links)$", re.IGNORECASE)

MANY = 20
"""Images from which on the patients of a table can be judged as a whole."""
LARGE_SHARE = 1 / 3


def same_spelling(names: Sequence[str], ids: PatientIds) -> list[str]:
    """Write each patient as where its key first occurs; ``exact`` leaves names as they are."""
    if ids == "exact":
        return list(names)
    return one_spelling(names)


def shared_patients(ours: Sequence[str], theirs: Sequence[str], ids: PatientIds) -> set[str]:
    """Return those of ``ours`` that are among ``theirs`` too."""
    if ids == "exact":
        return set(ours) & set(theirs)
    known = {patient_key(name) for name in set(theirs)}
    return {name for name in set(ours) if patient_key(name) in known}


def why_no_patient(name: str) -> str | None:
    """Say why a name cannot be a patient's, if so: rounded, or words out of a report."""
    if ROUNDED.fullmatch(name.strip()):
        return "a number that a spreadsheet has rounded: save the column as text"
    words = _WORDS.findall(name)
    is_sentence = len(words) >= 2 and name.rstrip().endswith((".", ":", ";", "?", "!", ","))
    if len(words) >= 5 or is_sentence:
        return "words, as of a report: is a separator in it not quoted?"
    return None


def describe_spellings(names: Sequence[str], rows: Sequence[int]) -> str | None:
    """Say how many patients are written in several ways, by rows; None where none is."""
    spellings: dict[str, dict[str, int]] = defaultdict(dict)
    for name, row in zip(names, rows, strict=True):
        spellings[patient_key(name)].setdefault(name, row)
    several = [list(rows_of.values()) for rows_of in spellings.values() if len(rows_of) > 1]
    if not several:
        return None
    shown = "; ".join(" and ".join(map(str, group[:2])) for group in several[:3])
    return (
        f"{len(several)} patients are written in several ways that differ in case, zeros, blanks or"
        f" decimals alone (rows {shown}{'; ...' if len(several) > 3 else ''}): each is probably one"
        " person"
    )


def describe_dashes(names: Iterable[str]) -> str | None:
    """Say how many patients differ in dashes and the like alone, which may tell persons apart."""
    keys = {patient_key(name) for name in set(names)}
    bare = Counter(_DASHES_BETWEEN.sub("", key) for key in keys)
    alike = sum(1 for count in bare.values() if count > 1)
    if not alike:
        return None
    return (
        f"{alike} patients differ from another one in a dash or a dot alone, as P-1 and P1 do, and"
        " count as several: if each is one person, write the names alike"
    )


def judge_patients(names: Sequence[str], images: Sequence[object]) -> list[str]:
    """Say what about the patients of a table, taken together, is unlikely.

    Args:
        names: Each row's patient.
        images: What its image lies in: a file, of which a volume is one.
    """
    files = Counter(name for name, _ in dict.fromkeys(zip(names, images, strict=True)))
    total, notes = files.total(), []
    dates = sum(DATE.fullmatch(name.strip()) is not None for name in names)
    if dates:
        notes.append(
            f"the patient is a date in {dates} rows: a column of days, or identifiers that a"
            " spreadsheet took for days; save the column as text"
        )
    digits = [name for name in files if name.isdigit() and len(name) > 15]
    if digits and all(name.endswith("00") for name in digits):
        notes.append("the patients are numbers of more than 15 digits, which spreadsheets round")
    if total < MANY:
        return notes
    most = files.most_common(1)[0][1]
    if most >= LARGE_SHARE * total:
        notes.append(
            f"one patient has {most} of {total} images, of {len(files)} patients in all: is the"
            " column a patient's identifier?"
        )
    if most == 1 and len(names) == total:
        one_each = "each patient has one image: is the column a patient's identifier, or a row's?"
        people = {_EYE.sub("", name) for name in files}
        if len(people) < len(files):
            one_each = (
                f"patients differ in the eye alone: {len(files)} are {len(people)} without it, and"
                " both eyes of a person should be on one side of the split"
            )
        notes.append(one_each)
    elif len({_EYE.sub("", name) for name in files}) <= 0.75 * len(files):
        notes.append(
            "patients differ in the eye alone: both eyes of a person should be one patient"
        )
    return notes
