"""What is wrong with rows: pure functions from rows and image facts to problems.

Each kind of problem says in its own words what is done about it. A row is left out only if nothing
can be learned from it, or if it repeats another one; the rest is a warning.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice

from retfiner.data.check.deidentification import (
    RECORD,
    identifiers_in_path,
    identifiers_in_patient,
    identifiers_in_report,
)
from retfiner.data.check.images import Intensity
from retfiner.data.pair_table import EXAM, PairRow, Problem, Role

DARK = 1 / 15.9
"""The brightest pixel of 12-bit values in a 16-bit file is at most 4095 / 65535 = 1 / 16."""
SATURATED = 0.5
"""Share of pixels at the top of the range above which an image counts as saturated."""
MOST_NAMED = 5
"""Other rows that a problem names at most."""

WITHHELD = "the file's name is not shown, since it may name a patient"


def find_identifiers(
    rows: Sequence[PairRow], leave_out: bool, listed: frozenset[str] = frozenset()
) -> list[Problem]:
    """Find what looks as if it named a patient: in reports, paths of images, patients and exams.

    Numbers in paths are a data set's own and leave no row out; nor does what names patients or
    exams in the table, where it can be changed.
    """
    problems = []
    of_report: dict[str, list[str]] = {}
    of_patient: dict[str | None, list[str]] = {}
    for index, row in enumerate(rows):
        if row.report not in of_report:
            of_report[row.report] = identifiers_in_report(row.report, listed)
        if row.patient not in of_patient:
            of_patient[row.patient] = identifiers_in_patient(row.patient or "", listed)
        exam = row.kept.get(EXAM, "")
        if exam not in of_report:
            of_report[exam] = identifiers_in_report(exam, listed)
        for kind in of_report[exam]:
            problems.append(Problem(index, "group", f"may hold: {kind}"))
        for kind in of_report[row.report]:
            problems.append(Problem(index, "report", f"may hold: {kind}", "", leave_out))
        for kind in identifiers_in_path(row.name, listed):
            is_identity = kind != RECORD
            problems.append(
                Problem(index, "image", f"may hold: {kind}", "", leave_out and is_identity)
            )
        for kind in of_patient[row.patient]:
            problems.append(Problem(index, "patient", f"may hold: {kind}"))
    return problems


def find_unusable_images(rows: Sequence[PairRow], withheld: set[int]) -> list[Problem]:
    """Find images that cannot be read, show nothing, or show next to nothing.

    The file names of the rows in ``withheld`` are not shown.
    """
    problems = []
    for index, row in enumerate(rows):
        if not row.name or row.facts is None:
            continue
        reason = row.unclear or row.facts.reason
        if reason is not None:
            detail = WITHHELD if index in withheld else reason
            problems.append(Problem(index, "image", "image cannot be read", detail, True))
            continue
        named = WITHHELD if index in withheld else row.name
        for note in row.facts.notes:
            detail = f"{named}; {note.detail}" if note.detail else named
            problems.append(Problem(index, "image", note.kind, detail))
        if row.facts.intensity is not None:
            kind, detail, is_left_out = _intensity_problem(row.facts.intensity)
            if kind:
                detail = f"{named}; {detail}" if detail else named
                problems.append(Problem(index, "image", kind, detail, is_left_out))
    return problems


def _intensity_problem(values: Intensity) -> tuple[str, str, bool]:
    """Return the kind, the detail, and whether the row is left out; no kind if there is none."""
    if values.minimum == values.maximum:
        black = values.maximum == 0
        return "image is all black" if black else "image has a single gray value", "", True
    if values.maximum < DARK:
        detail = f"brightest at {100 * values.maximum:.1f} % of the range"
        return "image is almost black", detail, False
    if values.saturated > SATURATED:
        detail = f"{100 * values.saturated:.0f} % of the pixels are white"
        return "image is saturated", detail, False
    return "", "", False


def find_duplicates(rows: Sequence[PairRow], usable: Iterable[int]) -> list[Problem]:
    """Find rows that repeat others, and images that come twice, among those that are usable.

    The first of several equal rows stays, on each side of a given split.
    """
    by_image: dict[str, list[int]] = defaultdict(list)
    for index in usable:
        by_image[rows[index].identity].append(index)
    groups = (group for group in by_image.values() if len(group) > 1)
    problems = [problem for group in groups for problem in _within_one_image(rows, group)]
    return sorted(problems, key=lambda problem: problem.index)


def _within_one_image(rows: Sequence[PairRow], group: list[int]) -> list[Problem]:
    """Compare the rows that show one image."""
    problems = []
    first_of: dict[tuple[str, str | None, str | None], int] = {}
    kept = []
    for index in group:
        row = rows[index]
        at = first_of.setdefault((row.report, row.patient, row.side), index)
        if at == index:
            kept.append(index)
            continue
        first = rows[at]
        role: Role = "row"
        kind, detail = "duplicate row", first.label(seen_from=row)
        if first.image != row.image:
            role, kind = "image", "copy of an image with the same report"
            same_bytes = first.facts and row.facts and first.facts.sha256 == row.facts.sha256
            detail += ", the same bytes" if same_bytes else ", the same pixels"
        problems.append(Problem(index, role, kind, detail, left_out=True))
    reports = [rows[index].report for index in kept]
    problems += _disagreements(rows, kept, reports, "report", "same image with another report")
    patients = [rows[index].patient for index in kept]
    problems += _disagreements(rows, kept, patients, "patient", "same image under another patient")
    return problems


def _disagreements(
    rows: Sequence[PairRow],
    indices: list[int],
    values: Sequence[Hashable],
    role: Role,
    kind: str,
) -> list[Problem]:
    """Name, for each row, the rows of the same image that say something else."""
    counts = Counter(values)
    if len(counts) == 1:
        return []
    pairs = list(zip(indices, values, strict=True))
    others_of: dict[Hashable, list[int]] = {}  # looked for once a value: rows are many
    problems = []
    for index, value in pairs:
        if value not in others_of:
            others = (i for i, other in pairs if other != value)
            others_of[value] = list(islice(others, MOST_NAMED))
        named = [rows[other].label(rows[index]) for other in others_of[value]]
        more = len(indices) - counts[value] - len(named)
        detail = ", ".join(named) + (f" and {more} more" if more else "")
        problems.append(Problem(index, role, kind, detail))
    return problems
