"""Train, val and test: by patient, with the classes in proportion.

A split of its own that a download comes with is kept; what it lacks is carved out of its training
set. Where nobody knows the patients, the split is by image, and that is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from linprobe.prepare.folds import Assignment, Groups, divide_groups
from linprobe.prepare.spec import BScan
from retfiner.common.errors import InputError, shorten

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Division:
    """Which B-scan goes where.

    Attributes:
        splits: Split of each B-scan, in their order.
        rule: How that was decided, in a sentence.
        seeded: Whether a seed and shares had a part in it.
        notes: What a user must know.
    """

    splits: list[str]
    rule: str
    seeded: bool
    notes: list[str]


def divide(bscans: Sequence[BScan], shares: Sequence[float], seed: int) -> Division:
    """Divide B-scans into train, val and test.

    The result depends on the names, classes and patients alone, not on the order of the B-scans.

    Args:
        bscans: What a download holds. A patient with a split of its own keeps it.
        shares: Of train, val and test, adding up to 1.
        seed: Any non-negative integer.

    Raises:
        InputError: If the download's own split has no training set or shares a patient, or there
            are too few patients to fill each split.
    """
    keys = [bscan.name if bscan.patient is None else f"patient {bscan.patient}" for bscan in bscans]
    groups = _groups(keys, bscans)
    own = _own_splits(keys, bscans)
    assigned = _complete(groups, own, dict(zip(SPLITS, shares, strict=True)), seed)
    splits = [assigned[key] for key in keys]
    missing = sorted(set(SPLITS) - set(splits))
    if missing:
        raise InputError(
            f"No patient is left for {' and '.join(missing)}",
            got=f"{len(groups)} patients or, where they are unknown, images",
            remedy="give a download with more patients, or other shares with --split",
        )
    unit = "image" if all(bscan.patient is None for bscan in bscans) else "patient"
    rule, seeded = _rule(set(own.values()), len(own) == len(groups), unit)
    return Division(splits, rule, seeded, _notes(bscans, splits))


def _groups(keys: Sequence[str], bscans: Sequence[BScan]) -> Groups:
    """Count the images of each patient and class, in an order that depends on names alone."""
    groups: Groups = {key: {} for key in sorted(set(keys))}
    for key, bscan in zip(keys, bscans, strict=True):
        groups[key][bscan.label] = groups[key].get(bscan.label, 0) + 1
    return groups


def _own_splits(keys: Sequence[str], bscans: Sequence[BScan]) -> Assignment:
    """Read the split of each patient that has one of its own."""
    own: dict[str, set[str]] = defaultdict(set)
    for key, bscan in zip(keys, bscans, strict=True):
        if bscan.split is not None:
            own[key].add(bscan.split)
    torn = sorted(key for key, splits in own.items() if len(splits) > 1)
    if torn:
        raise InputError(
            "The download's own split shares patients",
            got=f"{len(torn)}, among them {shorten(torn, 3)}",
            expected="each patient in one of train, val and test",
            remedy="divide them yourself and give the split with --split_file",
        )
    return {key: next(iter(splits)) for key, splits in own.items()}


def _complete(groups: Groups, own: Assignment, shares: dict[str, float], seed: int) -> Assignment:
    """Give a split to the patients without one, and fill splits that the download lacks."""
    if not own:
        return divide_groups(groups, shares, seed)
    present = set(own.values())
    if "train" not in present:
        raise InputError(
            "The download's own split has no training set",
            got=", ".join(sorted(present)),
            remedy="check that the download is complete",
        )
    assigned = dict(own)
    free = {key: counts for key, counts in groups.items() if key not in own}
    if free:
        assigned |= divide_groups(free, {s: shares[s] for s in SPLITS if s in present}, seed)
    lacking = [split for split in SPLITS if split not in present]
    if lacking:
        train = {key: groups[key] for key in groups if assigned[key] == "train"}
        carved = divide_groups(train, {s: shares[s] for s in ("train", *lacking)}, seed)
        assigned |= carved
    return assigned


def _rule(own: set[str], all_own: bool, unit: str) -> tuple[str, bool]:
    """Say in a sentence how the splits came about, and whether shares and seed had a part."""
    if not own:
        return f"random by {unit}, stratified by class", True
    lacking = [split for split in SPLITS if split not in own]
    words = "the download's own split"
    if not all_own:
        words += f"; what has none was divided by {unit}"
    if lacking:
        words += f"; {' and '.join(lacking)} taken by {unit} from its training set"
    return words, bool(lacking) or not all_own


def _notes(bscans: Sequence[BScan], splits: Sequence[str]) -> list[str]:
    notes = []
    unknown = sum(bscan.patient is None for bscan in bscans)
    if unknown == len(bscans):
        notes.append(
            "Patients are not known: the split is by image, and a patient may be in several splits."
        )
    elif unknown:
        notes.append(f"The patient of {unknown} images is not known: they were divided by image.")
    for split in SPLITS:
        there = {b.label for b, place in zip(bscans, splits, strict=True) if place == split}
        absent = sorted({bscan.label for bscan in bscans} - there)
        if absent:
            notes.append(f"No image of {shorten(absent)} in {split}: too few patients.")
    return notes
