"""Who goes to training and who to validation: by patient, and never one image on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retfiner.common.errors import InputError, shorten
from retfiner.data.check.images import ImageFacts
from retfiner.data.check.rows import SIDES, TRAIN, VALIDATION, Problem, Role, Row, row_label
from retfiner.data.manifest import Manifest, split_by_patient
from retfiner.vision.images import ImageAddress


def group_rows(rows: Sequence[Row], facts: Mapping[ImageAddress, ImageFacts]) -> list[str]:
    """Group rows that have to stay on one side: those of one patient, and those of one image.

    Where one image stands under two patients, these two are one group.

    Args:
        rows: The rows; where no patient is known, each stands for itself.
        facts: What is known of each image.

    Returns:
        The name of each row's group: the first, in order, of its patients' names.
    """
    own = [f"{row.file} {row.number}" if row.patient is None else row.patient for row in rows]
    parent = {name: name for name in own}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first_with: dict[str, str] = {}
    for row, name in zip(rows, own, strict=True):
        one, other = root(name), root(first_with.setdefault(facts[row.image].identity, name))
        parent[max(one, other)] = min(one, other)
    return [root(name) for name in own]


def split_rows(
    rows: Sequence[Row],
    groups: Sequence[str],
    facts: Mapping[ImageAddress, ImageFacts],
    fraction: float,
    seed: int,
) -> list[str]:
    """Split groups at random; what train.py would do itself, but for images of two patients.

    Args:
        rows: The rows.
        groups: What :func:`group_rows` gave.
        facts: What is known of each image.
        fraction: Share of the groups for validation, in (0, 1).
        seed: Which groups that are.

    Returns:
        The side of each row.

    Raises:
        InputError: If there are fewer than two groups.
    """
    patients = {row.patient for row in rows}
    if len(set(groups)) < 2 and len(patients) > 1:
        raise InputError(
            "the pairs cannot be split by patient",
            got=f"images under more than one patient link all {len(patients)} of them: rows "
            + shorten(_rows_of_shared_images(rows, facts)),
            expected="at least two patients without a common image",
            remedy="mend the patient in these rows, or take them out",
        )
    table = Manifest(
        source=rows[0].file,
        images=[row.image for row in rows],
        reports=[row.report for row in rows],
        patients=list(groups),
        rows=list(range(len(rows))),
        skipped=[],
    )
    _, validation = split_by_patient(table, fraction, seed)
    held_out = set(validation.rows)
    return [VALIDATION if index in held_out else TRAIN for index in range(len(rows))]


def _rows_of_shared_images(
    rows: Sequence[Row], facts: Mapping[ImageAddress, ImageFacts]
) -> list[str]:
    patients: dict[str, set[str | None]] = {}
    for row in rows:
        patients.setdefault(facts[row.image].identity, set()).add(row.patient)
    return [str(row.number) for row in rows if len(patients[facts[row.image].identity]) > 1]


def find_leaks(rows: Sequence[Row], groups: Sequence[str], indices: Sequence[int]) -> list[Problem]:
    """Find rows of a given split whose patient, or whose image, is on an earlier side as well.

    Such rows are left out: those of training stay, those of validation and test go.

    Args:
        rows: All rows.
        groups: The group of each of ``indices``.
        indices: The rows that are used.
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
            kind = "patient on both sides" if by_patient else "image on both sides"
            first = patients[patient] if by_patient else taken[group]
            detail = f"{row_label(rows, first, index)} is in {rows[first].side}"
            role: Role = "patient" if by_patient else "image"
            problems.append(Problem(index, role, kind, detail, True))
        for index, group in members:
            taken.setdefault(group, index)
            patients.setdefault(rows[index].patient, index)
    return problems


def require_disjoint(
    rows: Sequence[Row], sides: Sequence[str], facts: Mapping[ImageAddress, ImageFacts]
) -> None:
    """Make sure that no patient and no image is on two sides.

    Args:
        rows: The rows.
        sides: The side of each.
        facts: What is known of each image.

    Raises:
        RuntimeError: If one is: a fault of this program, not of the data.
    """
    side_of: dict[tuple[str, str], str] = {}
    for row, side in zip(rows, sides, strict=True):
        keys = [("image", facts[row.image].identity)]
        keys += [] if row.patient is None else [("patient", row.patient)]
        for key in keys:
            if side_of.setdefault(key, side) != side:
                raise RuntimeError(f"the split puts one {key[0]} on two sides, row {row.number}")
