"""Who goes to training and who to validation: by patient, and never one image on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from retfiner.common.errors import InputError, shorten
from retfiner.data.linked import number_linked
from retfiner.data.manifest import split_groups
from retfiner.data.pair_table import PairRow, Problem, Role

TRAIN, VALIDATION, TEST = SIDES = ("train", "val", "test")
"""The sides of a split, in the order in which a patient on several of them is kept."""

SIDES_BY_WORD = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""How tables call them."""


def group_rows(rows: Sequence[PairRow]) -> list[str]:
    """Name each row's group: rows of one patient or of one image have to stay on one side.

    Where one image stands under two patients, these two are one group, with the first of their
    names in order; where no patient is known, each row stands for itself.
    """
    own = [row.patient or row.group or f"{row.file} {row.number}" for row in rows]
    numbers = number_linked([(name, row.identity) for name, row in zip(own, rows, strict=True)])
    first: dict[int, str] = {}
    for name, number in sorted(zip(own, numbers, strict=True)):
        first.setdefault(number, name)
    return [first[number] for number in numbers]


def split_rows(
    rows: Sequence[PairRow], groups: Sequence[str], fraction: float, seed: int
) -> list[str]:
    """Split groups at random and return each row's side.

    It is what train.py would do itself, but for images of two patients.

    Raises:
        InputError: If there are fewer than two groups.
    """
    patients = {row.patient for row in rows}
    if len(set(groups)) < 2 and len(patients) > 1:
        of_image: dict[str, set[str | None]] = defaultdict(set)
        for row in rows:
            of_image[row.identity].add(row.patient)
        shared = [str(row.number) for row in rows if len(of_image[row.identity]) > 1]
        raise InputError(
            "the pairs cannot be split by patient",
            got=f"images under more than one patient link all {len(patients)} of them: rows "
            + shorten(shared),
            expected="at least two patients without a common image",
            remedy="mend the patient in these rows, or take them out",
        )
    sides = [TRAIN] * len(rows)
    for index in split_groups(groups, fraction, seed, rows[0].file)[1]:
        sides[index] = VALIDATION
    return sides


def find_leaks(
    rows: Sequence[PairRow], groups: Sequence[str], indices: Sequence[int]
) -> list[Problem]:
    """Find rows of a given split whose patient, or whose image, is on an earlier side as well.

    Such rows are left out: those of training stay, those of validation and test go. ``groups`` are
    those of the rows at ``indices``, which are used.
    """
    problems = []
    taken: dict[str, int] = {}
    patients: dict[str | None, int] = {}
    for side in SIDES:
        members = [(i, g) for i, g in zip(indices, groups, strict=True) if rows[i].side == side]
        for index, group in members:
            if group not in taken:
                continue
            patient = rows[index].patient
            by_patient = patient is not None and patient in patients
            role: Role = "patient" if by_patient else "image"
            first = rows[patients[patient] if by_patient else taken[group]]
            detail = f"{first.label(rows[index])} is in {first.side}"
            problems.append(Problem(index, role, f"{role} on both sides", detail, True))
        for index, group in members:
            taken.setdefault(group, index)
            patients.setdefault(rows[index].patient, index)
    return problems


def require_disjoint(rows: Sequence[PairRow], sides: Sequence[str]) -> None:
    """Make sure that no patient and no image is on two sides.

    Raises:
        RuntimeError: If one is: a fault of this program, not of the data.
    """
    side_of: dict[tuple[str, str | None], str] = {}
    for row, side in zip(rows, sides, strict=True):
        for kind, value in (("image", row.identity), ("patient", row.patient)):
            if value is not None and side_of.setdefault((kind, value), side) != side:
                raise RuntimeError(f"the split puts one {kind} on two sides, row {row.number}")
