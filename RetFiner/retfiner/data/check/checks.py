"""What is wrong with rows: pure functions from rows and image facts to problems.

Each kind of problem says in its own words what is done about it. A row is left out only if nothing
can be learned from it, or if it repeats another one; the rest is a warning.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice

from retfiner.data.check.identifiers import identifiers_in_path, identifiers_in_report
from retfiner.data.check.images import ImageFacts
from retfiner.data.check.rows import Problem, Role, Row, row_label
from retfiner.data.manifest import PLACEHOLDERS
from retfiner.vision.images import ImageAddress

MORE_PLACEHOLDERS = frozenset(
    {
        "blank", "dictated", "empty", "missing", "n.a.", "no report", "not available",
        "not dictated", "not reported", "pending", "report pending", "see above", "see below",
        "see previous", "see previous report", "see report", "siehe oben", "siehe vorbefund",
        "tba", "tbd", "test", "to follow", "unknown",
    }
)  # fmt: skip
"""Reports that say that there is none, besides those that training refuses as well."""

DARK = 1 / 15.9
"""The brightest pixel of 12-bit values in a 16-bit file is at most 4095 / 65535 = 1 / 16."""
SATURATED = 0.5
"""Share of pixels at the top of the range above which an image counts as saturated."""
MOST_NAMED = 5
"""Other rows that a problem names at most."""

WITHHELD = "the file's name is not shown, since it may name a patient"


def find_unusable_rows(rows: Sequence[Row]) -> list[Problem]:
    """Find rows without an image, without a report with words, or without a patient.

    Args:
        rows: The rows.
    """
    problems = []
    for index, row in enumerate(rows):
        if row.broken is not None:
            problems.append(Problem(index, "row", "row with too many fields", row.broken, True))
        if not row.name:
            problems.append(Problem(index, "image", "no image named", left_out=True))
        if not any(letter.isalpha() for letter in row.report):
            problems.append(Problem(index, "report", "empty report", left_out=True))
        elif is_placeholder(row.report):
            problems.append(Problem(index, "report", "placeholder for a report", left_out=True))
        if row.patient is not None and row.patient.casefold() in PLACEHOLDERS:
            problems.append(Problem(index, "patient", "no patient named", left_out=True))
        if row.side is None:
            kind = "split is none of train, val, test"
            problems.append(Problem(index, "split", kind, left_out=True))
    return problems


def is_placeholder(report: str) -> bool:
    """Say whether a report is a word that stands for a report that is not there."""
    word = report.casefold().strip(" .!?:;()[]<>-")
    return word in PLACEHOLDERS or word in MORE_PLACEHOLDERS or report.casefold() in PLACEHOLDERS


def find_identifiers(rows: Sequence[Row], leave_out: bool) -> list[Problem]:
    """Find what looks as if it named a patient, in reports and in the paths of images.

    Args:
        rows: The rows.
        leave_out: Whether such rows are left out.
    """
    problems = []
    for index, row in enumerate(rows):
        for kind in identifiers_in_report(row.report):
            problems.append(Problem(index, "report", f"may hold: {kind}", left_out=leave_out))
        for kind in identifiers_in_path(row.name):
            problems.append(Problem(index, "image", f"may hold: {kind}", left_out=leave_out))
    return problems


def find_unusable_images(
    rows: Sequence[Row], facts: Mapping[ImageAddress, ImageFacts], withheld: set[int]
) -> list[Problem]:
    """Find images that cannot be read, show nothing, or show next to nothing.

    Args:
        rows: The rows.
        facts: What is known of each image.
        withheld: Rows whose file name must not be shown.
    """
    problems = []
    for index, row in enumerate(rows):
        if not row.name:
            continue
        fact = facts[row.image]
        named = WITHHELD if index in withheld else row.name
        reason = row.unclear or fact.reason
        if reason is not None:
            detail = WITHHELD if index in withheld else reason
            problems.append(Problem(index, "image", "image cannot be read", detail, True))
        elif fact.intensity is not None:
            problem = _intensity_problem(index, fact, named)
            problems += [] if problem is None else [problem]
    return problems


def _intensity_problem(index: int, fact: ImageFacts, named: str) -> Problem | None:
    values = fact.intensity
    assert values is not None
    if values.minimum == values.maximum:
        kind = "image is all black" if values.maximum == 0 else "image has a single gray value"
        return Problem(index, "image", kind, named, left_out=True)
    if values.maximum < DARK:
        detail = (
            f"brightest at {100 * values.maximum:.1f} % of the range: 12 bits in a 16-bit file?"
        )
        return Problem(index, "image", "image is almost black", f"{named}; {detail}")
    if values.saturated > SATURATED:
        detail = f"{100 * values.saturated:.0f} % of the pixels are white"
        return Problem(index, "image", "image is saturated", f"{named}; {detail}")
    return None


def find_duplicates(
    rows: Sequence[Row], facts: Mapping[ImageAddress, ImageFacts], usable: Iterable[int]
) -> list[Problem]:
    """Find rows that repeat others, and images that come twice.

    The first of several equal rows stays, on each side of a given split.

    Args:
        rows: The rows.
        facts: What is known of each image.
        usable: The rows to compare; the others are left out for other reasons.
    """
    by_image: dict[Hashable, list[int]] = defaultdict(list)
    for index in usable:
        by_image[facts[rows[index].image].identity].append(index)
    problems = []
    for group in by_image.values():
        if len(group) > 1:
            problems += _within_one_image(rows, facts, group)
    return sorted(problems, key=lambda problem: problem.index)


def _within_one_image(
    rows: Sequence[Row], facts: Mapping[ImageAddress, ImageFacts], group: list[int]
) -> list[Problem]:
    """Compare the rows that show one image."""
    problems = []
    first_of: dict[tuple[str, str | None, str | None], int] = {}
    kept = []
    for index in group:
        row = rows[index]
        first = first_of.setdefault((row.report, row.patient, row.side), index)
        if first == index:
            kept.append(index)
            continue
        same_name = rows[first].image == row.image
        role: Role = "row" if same_name else "image"
        kind = "duplicate row" if same_name else "copy of an image with the same report"
        detail = f"{row_label(rows, first, index)}{_sameness(facts, rows[first], row)}"
        problems.append(Problem(index, role, kind, detail, left_out=True))
    reports = [rows[index].report for index in kept]
    problems += _disagreements(rows, kept, reports, "report", "same image with another report")
    patients = [rows[index].patient for index in kept]
    problems += _disagreements(rows, kept, patients, "patient", "same image under another patient")
    return problems


def _disagreements(
    rows: Sequence[Row], indices: list[int], values: Sequence[Hashable], role: Role, kind: str
) -> list[Problem]:
    """Name, for each row, the rows of the same image that say something else."""
    counts = Counter(values)
    if len(counts) == 1:
        return []
    problems = []
    for index, value in zip(indices, values, strict=True):
        others = (i for i, other in zip(indices, values, strict=True) if other != value)
        named = [row_label(rows, other, index) for other in islice(others, MOST_NAMED)]
        more = len(indices) - counts[value] - len(named)
        detail = ", ".join(named) + (f" and {more} more" if more else "")
        problems.append(Problem(index, role, kind, detail))
    return problems


def _sameness(facts: Mapping[ImageAddress, ImageFacts], one: Row, other: Row) -> str:
    if one.image == other.image:
        return ""
    same = facts[one.image].sha256 == facts[other.image].sha256
    return ", the same bytes" if same else ", the same pixels"
