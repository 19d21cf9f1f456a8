"""What the checks found, in one value that is printed, written as JSON and shown on a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retfiner.data.check.quality_control import CheckedPairs
from retfiner.data.check.split import SIDES
from retfiner.data.check.statistics import ImageStatistics, PatientStatistics, TextStatistics
from retfiner.data.pair_table import ProblemCount

NO_GUARANTEE = (
    "A warning, not a guarantee: names without a title or a label that --identifier_list does not "
    "hold, postal addresses, headers of DICOM and vendors' files and text within images are not "
    "found, and some of what is found names nobody."
)


@dataclass(frozen=True)
class SideCount:
    """How many pairs and patients a side of the split has; None where patients are not known."""

    pairs: int
    patients: int | None


@dataclass(frozen=True)
class Summary:
    """What the checks found.

    ``rows_flagged`` may name a patient; it is None where that was not looked for. ``patients`` is
    None where no patients are known. No patient and no image is on two sides of the split.
    """

    sources: list[str]
    rows: int
    pairs: int
    rows_left_out: int
    rows_with_problems: int
    rows_flagged: int | None
    problems: list[ProblemCount]
    notes: list[str]
    warnings: list[str]
    reports: TextStatistics
    images: ImageStatistics
    patients: PatientStatistics | None
    split: dict[str, SideCount]
    split_is_given: bool
    settings: dict[str, Any]
    next_command: str


def count_sides(checked: CheckedPairs) -> dict[str, SideCount]:
    """Count pairs and patients on each side of the split that has any."""
    counts = {}
    for side in SIDES:
        sided = zip(checked.pairs, checked.sides, strict=True)
        patients = [row.patient for row, its_side in sided if its_side == side]
        if patients:
            known = None if None in patients else len(set(patients))
            counts[side] = SideCount(len(patients), known)
    return counts


def format_summary(summary: Summary) -> str:
    """Format the summary in a few lines for a terminal."""
    split = "; ".join(_side(*item) for item in summary.split.items())
    given = " (as given)" if summary.split_is_given else ""
    patients = summary.patients
    of_patients = "" if patients is None else f"of {patients.patients:,} patients, "
    lines = [
        f"Rows:           {summary.rows:,} in {' and '.join(summary.sources)}",
        f"Pairs:          {summary.pairs:,} can be used, {of_patients}"
        f"{summary.images.distinct:,} different images",
        f"Reports:        {_lengths(summary.reports)}",
        f"Split:          {split}; no patient and no image on two sides{given}",
    ]
    if summary.rows_flagged is not None:
        lines.append(f"Identifiers:    {identifiers(summary)}. {NO_GUARANTEE}")
    lines += [f"Table:          {note}" for note in summary.notes]
    lines += [f"Note:           {warning}" for warning in summary.warnings]
    wrapped = [textwrap.fill(line, 100, subsequent_indent=" " * 16) for line in lines]
    return "\n".join([*wrapped, "", *_problem_lines(summary.problems)])


def _lengths(text: TextStatistics) -> str:
    counted = text.unit == "WordPieces"
    hint = ""
    if counted and text.covering > text.limit:
        hint = f" (--max_text_tokens {text.covering} cuts at most 5 %)"
    return (
        f"median {text.median:g} {text.unit}, longest {text.longest}; "
        f"{'' if counted else 'at least '}{percent(text.cut)} have more than {text.limit} and are "
        f"cut{hint}; {percent(text.repeated)} repeat another word for word"
        + (f"; {text.alike:,} different ones are the same after the cut" if text.alike else "")
    )


def percent(share: float) -> str:
    """Write a share in percent, to one decimal."""
    return f"{100 * share:.1f} %"


def identifiers(summary: Summary) -> str:
    """Say how many rows may name a patient, where, and by what."""
    found = [problem for problem in summary.problems if "may hold: " in problem.kind]
    kinds = [f"{p.kind.partition(': ')[2]} in {p.rows:,} [{p.column}]" for p in found]
    rows = summary.rows_flagged
    return f"{rows:,} rows may name somebody{': ' if kinds else ''}{', '.join(kinds)}"


def _side(name: str, count: SideCount) -> str:
    patients = "" if count.patients is None else f" of {count.patients:,} patients"
    return f"{count.pairs:,} pairs{patients} in {name}"


def _problem_lines(problems: Sequence[ProblemCount]) -> list[str]:
    if not problems:
        return ["Problems:       none"]
    kinds = [f"{p.kind} [{p.column}]" if p.column else p.kind for p in problems]
    width = max(map(len, kinds))
    lines = ["Problems"]
    for kind, problem in zip(kinds, problems, strict=True):
        more = ", ..." if problem.rows > len(problem.first) else ""
        done = "left out" if problem.left_out else "kept    "
        rows = f"row{'s' if problem.rows != 1 else ' '}"
        lines.append(
            f"  {kind:<{width}} {problem.rows:>7,} {rows} {done}  {', '.join(problem.first)}{more}"
        )
    return lines
