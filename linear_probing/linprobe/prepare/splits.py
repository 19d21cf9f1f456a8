"""Train, val and test: by patient, with the classes in proportion.

A split of its own that a download comes with is kept; what it lacks is carved out of its training
set. Where nobody knows the patients, the split is by image, and that is said.

Patients go, in random order, to the split that lacks their images most; then single ones are moved
as long as that brings the counts closer to the shares, and until each class is in every split.

Somebody's split can be repeated exactly, from their ``split.csv``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linprobe.prepare.spec import BScan
from linprobe.prepare.tables import SPLITS
from retfiner.common.errors import InputError, shorten
from retfiner.common.seeds import derive_seed

if TYPE_CHECKING:
    import pandas as pd

SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Split by the name of a folder, in lower case, of downloads that come divided."""

TRIES, ROUNDS = 5, 20
MANY = 2000
"""Of so many patients, one try is close enough."""

Groups = dict[str, Counter[str]]
"""Images of each class by patient."""
Assignment = dict[str, str]
"""Split by patient."""


class Division(NamedTuple):
    """Which B-scan goes where.

    ``splits`` has an item a B-scan; ``rule`` says in a sentence how that was decided, ``seeded``
    whether a seed and shares had a part in it, ``notes`` what a user must know.
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
    groups: Groups = {key: Counter() for key in sorted(set(keys))}
    for key, bscan in zip(keys, bscans, strict=True):
        groups[key][bscan.label] += 1
    own = _own_splits(keys, bscans)
    free = {key: counts for key, counts in groups.items() if key not in own}
    lacking = [split for split in SPLITS if own and split not in own.values()]
    share = dict(zip(SPLITS, shares, strict=True))
    assigned = own | divide_groups(free, {s: share[s] for s in SPLITS if s not in lacking}, seed)
    if lacking:
        train = {key: counts for key, counts in groups.items() if assigned[key] == "train"}
        assigned |= divide_groups(train, {s: share[s] for s in ("train", *lacking)}, seed)
    splits = [assigned[key] for key in keys]
    missing = sorted(set(SPLITS) - set(splits))
    if missing:
        raise InputError(
            f"No patient is left for {' and '.join(missing)}",
            got=f"{len(groups)} patients or, where they are unknown, images",
            remedy="give a download with more patients, or other shares with --split",
        )
    unit = "image" if all(bscan.patient is None for bscan in bscans) else "patient"
    rule = "the download's own split" if own else f"random by {unit}, stratified by class"
    if own and free:
        rule += f"; what has none was divided by {unit}"
    if lacking:
        rule += f"; {' and '.join(lacking)} taken by {unit} from its training set"
    return Division(splits, rule, bool(free or lacking), _notes(bscans, splits))


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
            remedy="divide them yourself and give the split with --split_file, or give the images "
            "without folders train and test",
        )
    present = set().union(*own.values())
    if own and "train" not in present:
        raise InputError(
            "The download's own split has no training set",
            got=", ".join(sorted(present)),
            remedy="check that the download is complete",
        )
    return {key: next(iter(splits)) for key, splits in own.items()}


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


def divide_groups(groups: Groups, shares: Mapping[str, float], seed: int) -> Assignment:
    """Divide patients so that the classes are spread in proportion to the shares.

    Each class with at least as many patients as there are splits is in all of them, as far as
    patients with several classes allow.
    """
    if not groups:
        return {}
    labels = sorted({label for counts in groups.values() for label in counts})
    held = np.array([[counts[label] for label in labels] for counts in groups.values()])
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


def repeat_split(
    bscans: Sequence[BScan], rows: pd.DataFrame, path: Path
) -> tuple[list[BScan], list[str]]:
    """Find the B-scans of a download that a table names, and take its splits; give notes as well.

    They are found by the name of the file without folder and suffix, else by ``source``, and come
    in the order of the table (at ``path``), with its patients where the download tells none.

    Raises:
        InputError: If an image is not found or named twice, or its class or patient is another one
            in the download.
    """
    by_name = {bscan.name: bscan for bscan in bscans}
    by_source = {bscan.source: bscan for bscan in bscans}
    found: list[BScan] = []
    missing: list[str] = []
    for row in rows.to_dict("records"):
        bscan = by_name.get(PurePosixPath(row["image"]).stem) or by_source.get(row["source"])
        if bscan is None:
            missing.append(row["image"])
            continue
        for what, ours in (("class", bscan.label), ("patient", bscan.patient)):
            if row[what] and ours is not None and row[what] != ours:
                raise InputError(
                    f"{path} and the download do not agree on the {what} of {row['image']}",
                    got=f"{row[what]} in the table, {ours} in the download",
                )
        patient = bscan.patient if bscan.patient is not None else row["patient"] or None
        found.append(replace(bscan, patient=patient, split=row["split"]))
    if missing:
        raise InputError(
            f"{len(missing)} of {len(rows)} images of {path} are not in the download",
            got=f"no {shorten(missing, 4)}",
            expected=f"names such as {shorten(sorted(by_name), 3)}",
            remedy="give the same download and the same --bscan, --label as were used for it",
        )
    twice = sorted(n for n, k in Counter(bscan.name for bscan in found).items() if k > 1)
    if twice:
        raise InputError(f"{path} names an image twice", got=shorten(twice))
    left = len(bscans) - len(found)
    note = f"{left} images of the download are not in {path.name} and were left out."
    return found, [note] * bool(left)


def check_content(expected: pd.DataFrame, written: pd.DataFrame, path: Path) -> None:
    """Check that the images that were written are those of the table, as far as it has hashes.

    Where it has the hash of the pixels, that one counts: the hash of a PNG depends on the version
    of its compressor as well.

    Raises:
        InputError: If an image differs.
    """
    theirs, ours = expected.reset_index(drop=True), written.reset_index(drop=True)
    by_pixels = theirs["pixels_sha256"] != ""
    differs = (by_pixels & (theirs["pixels_sha256"] != ours["pixels_sha256"])) | (
        ~by_pixels & (theirs["sha256"] != "") & (theirs["sha256"] != ours["sha256"])
    )
    if differs.any():
        raise InputError(
            f"{differs.sum()} of {len(theirs)} images are not those of {path}",
            got=f"another sha256 for {shorten(theirs.loc[differs, 'image'].tolist(), 4)}",
            expected="the same images, byte for byte",
            remedy="use the same download and flags; the sha256 of a PNG also differs between "
            "versions of Pillow: without the column sha256, it is not compared",
        )
