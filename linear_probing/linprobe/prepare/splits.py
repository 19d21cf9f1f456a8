"""Train, val and test: by patient, with the classes in proportion.

A split of its own that a download comes with is kept; what it lacks is carved out of its training
set. Where nobody knows the patients, the split is by image, and that is said.

Patients go, in random order, to the split that lacks their images most; then single ones are moved
as long as that brings the counts closer to the shares, and until each class is in every split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linprobe.prepare.spec import BScan
from retfiner.common.errors import InputError, shorten
from retfiner.common.seeds import derive_seed

SPLITS = ("train", "val", "test")
TRIES, ROUNDS = 5, 20
MANY = 2000
"""Of so many patients, one try is close enough."""

Groups = dict[str, dict[str, int]]
"""Images of each class by patient."""
Assignment = dict[str, str]
"""Split by patient."""
Array = NDArray[np.float64]


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


def divide_groups(groups: Groups, shares: dict[str, float], seed: int) -> Assignment:
    """Divide patients so that the classes are spread in proportion to the shares.

    Each class with at least as many patients as there are splits is in all of them, as far as
    patients with several classes allow.
    """
    labels = sorted({label for counts in groups.values() for label in counts})
    held = np.array([[counts.get(label, 0) for label in labels] for counts in groups.values()])
    tries = (
        _Places(held, list(shares.values()), np.random.default_rng(derive_seed("split", seed, k)))
        for k in range(1 if len(groups) > MANY else TRIES)
    )
    best = min(tries, key=lambda one: one.distance)
    return dict(zip(groups, (list(shares)[place] for place in best.place), strict=True))


class _Places:
    """The split of each of P patients; ``held`` (P, C) counts their images of each class."""

    def __init__(
        self, held: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
    ) -> None:
        self.has = held > 0
        self.held = np.concatenate([held, held.sum(1, keepdims=True)], axis=1)  # and of all classes
        self.size = self.held.sum(0)
        # What each split has more than its share, of each class and of all images.
        self.excess = -np.outer(np.array(shares) / sum(shares), self.size)
        self.owners = np.zeros((len(shares), held.shape[1]), dtype=np.int64)
        self.place = np.full(len(held), -1)
        for patient in rng.permutation(len(held)):
            self._move(patient, int((self.held[patient] * self.excess / self.size).sum(1).argmin()))
        for split in range(len(shares)):
            if not (self.place == split).any() and len(held) >= len(shares):
                fullest = np.bincount(self.place).argmax()
                self._move(self._smallest(np.flatnonzero(self.place == fullest)), split)
        self._spread_rare_classes()
        self._improve()

    @property
    def distance(self) -> float:
        """Squared distances from the wanted counts, each divided by the size of the class."""
        return float((self.excess**2 / self.size).sum())

    def _move(self, patient: int, split: int) -> None:
        there = self.place[patient]
        if there >= 0:
            self.excess[there] -= self.held[patient]
            self.owners[there] -= self.has[patient]
        self.excess[split] += self.held[patient]
        self.owners[split] += self.has[patient]
        self.place[patient] = split

    def _smallest(self, patients: NDArray[np.int64]) -> int:
        return int(patients[self.held[patients, -1].argmin()])

    def _can_leave(self, patient: int, but: int | None) -> bool:
        """Say whether all classes of a patient, ``but`` one, would still be where it is now."""
        there, needed = self.place[patient], self.has[patient].copy()
        if but is not None:
            needed[but] = False
        if not needed.any():
            return bool((self.place == there).sum() > 1)
        return bool((self.owners[there][needed] > 1).all())

    def _spread_rare_classes(self) -> None:
        """Move patients until each class that has enough of them is in every split.

        A class that is too rare for all is in train: what is not learned cannot be tested.
        """
        for label in np.argsort(self.has.sum(0), kind="stable"):
            for split in range(len(self.excess)):
                if self.owners[split, label]:
                    continue
                rare = int(label) if split == 0 else None
                having = np.flatnonzero(self.has[:, label])
                movable = [patient for patient in having if self._can_leave(int(patient), rare)]
                if movable:
                    self._move(self._smallest(np.array(movable)), split)

    def _improve(self) -> None:
        """Move single patients as long as that lowers the distance; no class leaves a split."""
        for _ in range(ROUNDS):
            moved = False
            for patient, own in enumerate(self.held):
                there = self.place[patient]
                if not self._can_leave(patient, None):
                    continue
                change = (2 * own * (self.excess - self.excess[there] + own) / self.size).sum(1)
                change[there] = 0
                if change.min() < -1e-9:
                    self._move(patient, int(change.argmin()))
                    moved = True
            if not moved:
                return
