"""The rows of a table of image-report pairs, as they stand in it, and what is wrong with each."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from retfiner.common.errors import InputError, shorten
from retfiner.common.eyes import eye_of
from retfiner.common.files import file_sha256
from retfiner.common.patient_names import tidy
from retfiner.common.placeholders import is_placeholder, says_nothing
from retfiner.data.encoding import misread, misread_as_western
from retfiner.data.image_places import ImagePlaces, tidy_path
from retfiner.data.patient_ids import (
    PatientIds,
    describe_spellings,
    judge_patients,
    same_spelling,
    why_no_patient,
)
from retfiner.data.report_text import (
    Report,
    as_text,
    find_common_beginnings,
    read_report,
    without_beginning,
)
from retfiner.data.table_file import read_table, require_whole_rows
from retfiner.vision.images import AS_SAID, ImageAddress, ReadAs, count_images
from retfiner.vision.images.read_as import FUNDUS
from retfiner.vision.images.remote import local_copy, local_path

if TYPE_CHECKING:
    from retfiner.data.check.images import ImageFacts

NO_PATIENT_COLUMN = "none"
SLICE_COLUMN, NO_SLICE_COLUMN = "slice", "none"
NO_GROUP_COLUMN = "none"
EYE_COLUMNS = ("eye", "laterality")
"""Looked for where rows are grouped to exams."""
MODALITY = "modality"
EXAM = "exam"
KEPT_COLUMNS = (EXAM, MODALITY, "licence", "made_from")
"""Columns that a checked table keeps where there are such: what images of one report share, the
kind of image, the licence, and what a report was made from that nobody wrote."""
PICTURES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp"))
"""Suffixes of files that hold one image: a column of slices says nothing of these."""
_WHOLE = re.compile(r"([0-9]{1,9})(?:[.,]0+)?")
VOLUMES_OPENED = 20
"""Volumes whose number of B-scans is compared with the slices of a table that never says 0."""
SAMPLE = 200
FIRST_ROWS = 6

Role = Literal["row", "image", "report", "patient", "split", "group"]
"""What a column is used for; ``row`` stands for the row as a whole."""


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    ``patient`` may be ``none``, to declare that patients are not known. ``slice`` holds the index
    of the B-scan in a volume, or empty cells; None is ``slice``, where there is such a column;
    ``none`` leaves it alone. ``read_as`` says what image files leave open, where a row does not.
    ``group`` names the exam that a row is of; None is an exam a row.
    """

    image: str = "image"
    report: str = "report"
    patient: str = "patient_id"
    split: str | None = None
    slice: str | None = None
    read_as: ReadAs = AS_SAID
    group: str | None = None

    @classmethod
    def as_trained(cls, settings: Mapping[str, Any], named: object = None) -> Columns:
        """Take columns as a training with such settings did, but for those that are ``named`` now.

        These are its attributes ``image_column`` and so on, where they are there and not None; a
        ``group_column`` of ``none`` takes rows one by one.
        """
        names = (f"{name}_column" for name in ("image", "report", "patient", "slice", "group"))
        image, report, patient, index, group = (
            getattr(named, name, None) or settings.get(name) for name in names
        )
        return cls(
            str(image), str(report), str(patient), slice=index,
            group=None if group == NO_GROUP_COLUMN else group,
        )  # fmt: skip

    @property
    def has_patient(self) -> bool:
        """Whether there is a column with the patient."""
        return self.patient != NO_PATIENT_COLUMN

    @property
    def required(self) -> list[str]:
        """The columns that have to be there."""
        patient = self.patient if self.has_patient else None
        index = None if self.slice == NO_SLICE_COLUMN else self.slice
        optional = (patient, self.split, index, self.group)
        return [self.image, self.report, *(name for name in optional if name is not None)]


@dataclass(frozen=True)
class Reading:
    """How the cells of a table are read where they can be read in two ways.

    Attributes:
        encoding: Of a CSV, as Python calls it; None to find it out.
        first_slice: What the slice column calls a volume's first B-scan; None is 0, unless the
            table shows that it is not.
        patient_ids: ``normalised`` takes names that differ in case, zeros, blanks or decimals alone
            for one patient, ``exact`` for two.
        strip_common: Whether what most reports begin with is taken off.
        findings_only: Whether nothing but findings and impression is kept of reports that have
            such sections.
    """

    encoding: str | None = None
    first_slice: int | None = None
    patient_ids: PatientIds = "normalised"
    strip_common: bool = False
    findings_only: bool = False

    @classmethod
    def as_trained(cls, settings: Mapping[str, Any], table: Path) -> Reading:
        """Read a table as a training with such settings did its own.

        How cells are encoded and slices counted is known of the training's own tables alone.
        """
        is_own = any(is_same_file(table, settings.get(name)) for name in ("train_csv", "val_csv"))
        return cls(
            settings.get("table_encoding") if is_own else None,
            settings.get("first_slice") if is_own else None,
            settings.get("patient_ids", "normalised"),
            settings.get("strip_common", False),
            settings.get("report_part") == "findings",
        )


@contextmanager
def by_its_training() -> Iterator[None]:
    """Tell whoever reads a table by a model's settings which script has the flags that decide.

    Raises:
        InputError: As the block does.
    """
    try:
        yield
    except InputError as error:
        if not (error.advises("--table_encoding") or error.advises("--first_slice")):
            raise
        told = "a flag of prepare_pairs.py, which writes a table that is read without"
        raise error.changed(remedy=f"{error.remedy} ({told})") from None


def is_same_file(path: Path, other: str | None) -> bool:
    """Say whether a file is the other one, or a copy of it."""
    if other is None:
        return False
    same_place = Path(other).resolve() == path.resolve()
    is_there = path.is_file() and Path(other).is_file()
    return same_place or (is_there and file_sha256(Path(other)) == file_sha256(path))


@dataclass(frozen=True, slots=True)
class PairRow:
    """A row of a table of pairs, not yet checked; white space around and within is tidied.

    The number is a spreadsheet's: the header is row 1. ``patient`` is None where the user said
    there is no such column, and ``side`` is empty where no split is given. ``broken`` says why the
    cells cannot be told apart, ``unclear`` why it cannot be told which image is meant, and
    ``no_text`` why the report is none. ``kept`` has the cells of :data:`KEPT_COLUMNS` by column.
    ``facts`` say what the image's file holds; None until it is read. ``group`` is the same for rows
    of one exam, and ``eye`` as written.
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
    no_text: str | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    facts: ImageFacts | None = None
    group: str | None = None
    eye: str = ""

    @property
    def modality(self) -> str:
        """The kind of image, as written."""
        return self.kept.get(MODALITY, "")

    @property
    def identity(self) -> str:
        """What rows of the same image share; see :attr:`ImageFacts.identity`."""
        assert self.facts is not None, f"the image of row {self.number} has not been read"
        return self.facts.identity

    def label(self, seen_from: PairRow) -> str:
        """Name the row in a message about another one: its number, with its file if it differs."""
        same_file = self.file == seen_from.file
        return f"row {self.number}" + ("" if same_file else f" of {self.file.name}")


@dataclass
class PairTable:
    """The rows of a table, and what is to be said of it as a whole.

    ``notes`` say how it was read, ``warnings`` what is unlikely about it, and ``advice`` what to do
    where its images are not found.
    """

    source: Path
    rows: list[PairRow]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    advice: str = ""


def read_pairs(
    path: Path, columns: Columns, image_root: Path | None = None, reading: Reading | None = None
) -> PairTable:
    """Read a table of image-report pairs; its rows are not checked.

    Raises:
        InputError: If the file or a column is missing, it can be read in two ways, or its slices
            are counted from 1.
    """
    reading = reading or Reading()
    optional = [*KEPT_COLUMNS, *([SLICE_COLUMN] if columns.slice is None else [])]
    optional += [] if columns.group is None else EYE_COLUMNS
    path = local_path(path)
    with local_copy(path) as copy:
        table = read_table(copy, columns.required, optional, reading.encoding)
    cells = table.cells
    names = [tidy_path(name) for name in cells[columns.image]]
    places = ImagePlaces.of(image_root or path.parent, names)
    slices = cells.get(columns.slice or SLICE_COLUMN)
    left_alone = []
    if columns.slice is None and slices and _are_of_pictures(slices, names):
        slices, left_alone = None, ["the column slice is left alone: each picture is one image"]
    images = locate_images(places, names, slices, cells.get(MODALITY), columns.read_as,
                           reading.first_slice or 0)  # fmt: skip
    sides = None if columns.split is None else cells[columns.split]
    patients = [tidy(name) for name in cells[columns.patient]] if columns.has_patient else None
    spellings = None if patients is None else same_spelling(patients, reading.patient_ids)
    reports = [read_report(cell) for cell in cells.pop(columns.report)]
    groups = None
    if columns.group is not None:  # of a patient: visit 1 of one is not visit 1 of another
        named = [tidy(cell) for cell in cells[columns.group]]
        named = same_spelling(named, reading.patient_ids)  # spreadsheets damage both alike
        owners = spellings or [""] * len(named)
        groups = [
            f"{o}\n{n}" if n else f"\n\n{i}"
            for i, (o, n) in enumerate(zip(owners, named, strict=True))
        ]
        cells[EXAM] = named
    eyes = next((cells[name] for name in EYE_COLUMNS if name in cells), None)
    strange = [eye for eye in eyes or () if eye.strip() and not eye_of(eye)]
    kept = [name for name in KEPT_COLUMNS if name in cells]
    rows = [
        PairRow(
            file=path,
            number=number,
            name=names[i],
            image=images[i][0],
            report=reports[i].text,
            patient=None if spellings is None else spellings[i],
            side="" if sides is None else sides[i].strip(),
            broken=table.broken.get(number),
            unclear=images[i][1],
            no_text=reports[i].problem,
            group=None if groups is None else groups[i],
            eye="" if eyes is None else eyes[i],
            kept={name: cells[name][i].strip() for name in kept},
        )
        for i, number in enumerate(table.rows)
    ]
    notes = [f"{path.name}: {'; '.join(table.notes)}"] if table.notes else []
    done = PairTable(path, rows, notes + left_alone + places.notes() + _markup_notes(reports))
    done.advice = places.advice([name for name in names if name])
    if reading.first_slice is None:
        done.warnings += _judge_slices(rows, slices)
    if patients is not None:
        done.warnings += _judge_names(rows, patients, reading.patient_ids)
    done.warnings += _judge_reports(rows)
    if strange:
        done.warnings.append(
            f"{len(strange)} cells of the column of eyes name none, and count as empty: "
            f"{shorten(sorted(set(strange)), 4)}; OD, OS and OU are known"
        )
    return done


def _are_of_pictures(slices: Sequence[str], names: Sequence[str]) -> bool:
    """Say whether all rows have a slice, and a picture: that of what it was once cut from."""
    kinds = {Path(name).suffix.lower() for name in names}
    return kinds <= PICTURES and all(cell.strip() for cell in slices)


def locate_images(
    places: ImagePlaces,
    names: Sequence[str],
    slices: Sequence[str] | None,
    modalities: Sequence[str] | None,
    read_as: ReadAs = AS_SAID,
    first_slice: int = 0,
) -> list[tuple[ImageAddress, str | None]]:
    """Locate the image of each row, one that is named often once; see :func:`locate_image`."""
    blank = [""] * len(names)
    keys = list(zip(names, slices or blank, modalities or blank, strict=True))
    found = {}
    for name, cell, modality in dict.fromkeys(keys):
        image, unclear = locate_image(places.root, places.find(name), cell, first_slice)
        image = replace(image, read_as=image.read_as.over(read_as))
        found[name, cell, modality] = as_kind(image, modality), unclear
    return [found[key] for key in keys]


def as_kind(image: ImageAddress, kind: str) -> ImageAddress:
    """Return an image's address so that a kind of image is read as such: photographs in colour."""
    if not is_fundus(kind):
        return image
    return replace(image, read_as=replace(image.read_as, modality=FUNDUS))


def is_fundus(cell: str) -> bool:
    """Say whether a cell of the column modality means a colour fundus photograph."""
    words = set(re.split(r"[\W_]+", cell.casefold()))
    return bool(words & {"fundus", "cfp"}) and not words & {"autofluorescence", "faf", "ir"}


def read_reports(path: Path, report_column: str = "report") -> list[str]:
    """Read the reports of a table alone; images are not looked at.

    Raises:
        InputError: If the file or the column is missing, or a row's cells cannot be told apart.
    """
    table = read_table(path, [report_column])
    require_whole_rows(table, path)
    reports = [read_report(cell) for cell in table.cells[report_column]]
    for note in [*table.notes, *_markup_notes(reports)]:
        print(f"Table:          {note}")
    return [report.text for report in reports]


def locate_image(
    root: Path, name: str, slice_cell: str, first_slice: int = 0
) -> tuple[ImageAddress, str | None]:
    """Return the address of an image, and why it cannot be understood if it cannot.

    The name is ``scan.png`` or ``scan.e2e#12``; the cell holds the B-scan's number, the first being
    ``first_slice``, or nothing.
    """
    place = root / name
    try:
        image = ImageAddress.parse(place)
        index = _slice_index(slice_cell, first_slice)
        if index is not None and image.index not in (None, index):
            raise InputError(f"{name} says one B-scan and the slice column says {index}")
        return (image if index is None else replace(image, index=index)), None
    except InputError as error:
        return ImageAddress(place), error.in_one_line


def _slice_index(cell: str, first: int) -> int | None:
    """Read a cell of the slice column; a table with gaps may have been written with 12.0 for 12."""
    text = cell.strip()
    if not text or is_placeholder(text):
        return None
    number = _WHOLE.fullmatch(text)
    if number is None or int(number[1]) < first:
        raise InputError(f"the slice is {text!r}", expected=f"a number, the first being {first}")
    return int(number[1]) - first


# ---- a table as a whole


def _markup_notes(reports: Sequence[Report]) -> list[str]:
    counts = Counter(kind for report in reports for kind in report.markup)
    return [f"taken out of {n} reports: {kind}" for kind, n in counts.most_common()]


def _judge_slices(rows: Sequence[PairRow], cells: Sequence[str] | None) -> list[str]:
    """Find out whether slices are counted from 1: no volume's 0, but the one after its last.

    Raises:
        InputError: If they are.
    """
    named: dict[Path, set[int]] = defaultdict(set)
    for row in rows:
        if row.broken is None and row.unclear is None and row.image.index is not None:
            if row.image.index == 0:
                return []
            named[row.image.path].add(row.image.index)
    several = [path for path, indices in named.items() if len(indices) > 1]
    if not several:
        return []  # a B-scan or none of each volume says nothing
    several.sort(key=lambda path: max(named[path]), reverse=True)
    for path in several[:VOLUMES_OPENED]:
        try:
            count = count_images(path)
        except (InputError, OSError):
            continue
        if max(named[path]) == count:
            in_column = cells is not None and any(cell.strip() for cell in cells)
            remedy = "--first_slice 1 reads them so"
            if not in_column:
                remedy = (
                    f"write the numbers into a column slice: {remedy}; {path.name}#0 is the first"
                )
            raise InputError(
                f"slices in {rows[0].file} are counted from 1",
                got=f"slice {count} of {path.name}, which holds {count} B-scans, and never slice 0",
                expected="0 for a volume's first B-scan",
                remedy=remedy,
            )
    if cells is None:
        return []  # #12 is this program's own way to write a B-scan, from 0
    return [
        "no volume's slice 0 is named: are slices counted from 0, as is assumed (--first_slice 0"
        " confirms it), or from 1 (--first_slice 1)?"
    ]


def _judge_names(rows: Sequence[PairRow], written: Sequence[str], ids: PatientIds) -> list[str]:
    used = [i for i, row in enumerate(rows) if row.patient and not is_no_patient(row.patient)]
    spelled = describe_spellings([written[i] for i in used], [rows[i].number for i in used])
    names = [str(rows[i].patient) for i in used]
    judged = judge_patients(names, [rows[i].image.file for i in used])
    if spelled is None:
        return judged
    counts = "counted as one" if ids == "normalised" else "counted as several (--patient_ids exact)"
    tell = "; --patient_ids exact tells them apart" if ids == "normalised" else ""
    return [f"{spelled}, {counts}{tell}", *judged]


def _judge_reports(rows: Sequence[PairRow]) -> list[str]:
    others = (row.report for row in rows if not row.report.isascii())
    sample = "\n".join(text[:400] for _, text in zip(range(SAMPLE), others, strict=False))
    found = misread_as_western(sample) if len(sample) > 20 else None
    if found is None:
        return []
    words = f" (there, {', '.join(found.words)})" if found.words else ""
    return [f"reports look as if they were {found.encoding} and had been decoded wrongly{words}"]


def strip_common_beginning(tables: Sequence[PairTable], strip: bool) -> None:
    """Find what most reports of the first table begin with; say so, and take it off all if asked.

    Reports have to say what is to be seen before they are cut: what all share is of no use, and
    leaves no room for the rest.
    """
    beginnings = find_common_beginnings([row.report for row in tables[0].rows])
    if not beginnings:
        return
    longest = max(beginnings, key=len)
    shown = as_text(longest)
    shown = shown if len(shown) <= 60 else f"{shown[:30]} ... {shown[-25:]}"
    said = f"the same {len(longest)} words ({shown})"
    if len(beginnings) > 1:
        said = f"one of {len(beginnings)} texts, the longest {len(longest)} words ({shown})"
    if not strip:
        tables[0].warnings.append(
            f"most reports begin with {said}, which leave less room before the cut: --strip_common"
            " takes them off"
        )
        return
    for table in tables:
        texts = [without_beginning(row.report, beginnings) for row in table.rows]
        stripped = sum(a != row.report for a, row in zip(texts, table.rows, strict=True))
        table.notes.append(f"taken off the beginning of {stripped} reports: {said}")
        table.rows = [
            row if text == row.report else replace(row, report=text)
            for row, text in zip(table.rows, texts, strict=True)
        ]


# ---- rows one by one


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a row, or may be.

    ``kind`` is in words that are the same for each row that has it; ``detail`` is what this row
    adds to that, never a patient's name and never a report's words.
    """

    index: int
    role: Role
    kind: str
    detail: str = ""
    left_out: bool = False

    def column(self, columns: Columns) -> str:
        """Return what the user calls the column; empty for the row as a whole."""
        if self.role == "group":
            return columns.group or EXAM
        return "" if self.role == "row" else getattr(columns, self.role) or ""


@lru_cache(1 << 16)
def is_no_patient(name: str) -> bool:
    """Say whether a name stands for a patient who is not known."""
    return is_placeholder(name) or not any(sign.isalnum() for sign in name)


def find_unusable_rows(rows: Sequence[PairRow]) -> list[Problem]:
    """Find rows without an image, without a report with words, or without a patient."""
    problems = []
    for index, row in enumerate(rows):
        if row.broken is not None:
            kind = "cells that cannot be told apart"
            problems.append(Problem(index, "row", kind, row.broken, True))
        if not row.name:
            problems.append(Problem(index, "image", "no image named", left_out=True))
        problems += _report_problems(index, row)
        problems += _patient_problems(index, row)
        if row.side is None:
            kind = "split is none of train, val, test"
            problems.append(Problem(index, "split", kind, left_out=True))
    return problems


def _report_problems(index: int, row: PairRow) -> Iterator[Problem]:
    if row.no_text is not None:
        yield Problem(index, "report", "report without readable text", row.no_text, True)
    elif not any(letter.isalpha() for letter in row.report):
        yield Problem(index, "report", "empty report", left_out=True)
    elif is_placeholder(row.report):
        yield Problem(index, "report", "placeholder for a report", left_out=True)
    elif says_nothing(row.report):
        yield Problem(index, "report", "report that says nothing by itself")
    elif misread(row.report):
        yield Problem(index, "report", "text that looks as if it was decoded wrongly")


def _patient_problems(index: int, row: PairRow) -> Iterator[Problem]:
    if row.patient is None:
        return
    if is_no_patient(row.patient):
        yield Problem(index, "patient", "no patient named", left_out=True)
    elif (why := why_no_patient(row.patient)) is not None:
        yield Problem(index, "patient", "no patient's identifier", why, True)


class ProblemCount(NamedTuple):
    """How many rows have a kind of problem, and the labels of the first of them.

    The column is empty for the row as a whole; a label has the file where there are two.
    """

    kind: str
    column: str
    rows: int
    left_out: bool
    first: list[str]


def count_problems(
    problems: Sequence[Problem], rows: Sequence[PairRow], columns: Columns
) -> list[ProblemCount]:
    """Count problems by kind and column: first what is left out, the most frequent first."""
    rows_with: dict[tuple[str, str, bool], dict[int, None]] = defaultdict(dict)
    for problem in problems:
        key = (problem.kind, problem.column(columns), problem.left_out)
        rows_with[key][problem.index] = None
    several = len({row.file for row in rows}) > 1
    counts = []
    for (kind, column, is_left_out), indices in rows_with.items():
        # A row that names a volume is there once an image.
        first = list(dict.fromkeys((rows[i].file, rows[i].number) for i in indices))[:FIRST_ROWS]
        labels = [f"{file.name} {number}" if several else str(number) for file, number in first]
        counts.append(ProblemCount(kind, column, len(indices), is_left_out, labels))
    return sorted(counts, key=lambda count: (not count.left_out, -count.rows))
