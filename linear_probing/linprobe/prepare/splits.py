"""Train, val and test: by patient, with the classes in proportion.

A split of its own that a download comes with is kept; what it lacks is carved out of its training
set. Where nobody knows the patients, the split is by image, and that is said.

Patients of a class, the rarest first, go in random order to the split that has none of it yet, else
to the one that lacks it most; of several orders the one that comes closest to the shares is taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from linprobe.prepare.spec import BScan
from linprobe.prepare.tables import SPLITS
from retfiner.common.errors import InputError, shorten
from retfiner.common.seeds import derive_seed

SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Split by the name of a folder, in lower case, of downloads that come divided."""

TRIES, MANY = 10, 2000
"""Orders of the patients, the best of which is taken; of many patients, one is close enough."""

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
            remedy="correct the split in the images' folders, or give the images "
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
    """Divide patients so that the classes are spread in proportion to the shares."""
    if not groups:
        return {}
    labels = sorted({label for counts in groups.values() for label in counts})
    held = np.array([[counts[label] for label in labels] for counts in groups.values()])
    wanted = np.outer(list(shares.values()), held.sum(0)) / sum(shares.values())
    rngs = (
        np.random.default_rng(derive_seed("split", seed, k))
        for k in range(TRIES if len(groups) < MANY else 1)
    )
    tries = (_deal(held, wanted, rng) for rng in rngs)
    place = min(tries, key=lambda dealt: dealt[1])[0]
    return dict(zip(groups, (list(shares)[k] for k in place), strict=True))


def _deal(
    held: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, float]]:
    """Deal P patients with (P, C) images to S splits, of which (S, C) are wanted.

    Gives the split of each, and how bad that is: classes that splits lack, distance from shares.
    """
    place, has, lacking = np.full(len(held), -1), np.zeros(wanted.shape, bool), wanted.copy()
    for label in np.argsort((held > 0).sum(0), kind="stable"):
        for patient in rng.permutation(np.flatnonzero((held[:, label] > 0) & (place < 0))):
            # What is not learned cannot be tested: the first goes to train, which lacks most.
            order = np.lexsort((-lacking[:, label], has[:, label]))
            place[patient] = split = order[0]
            has[split] |= held[patient] > 0
            lacking[split] -= held[patient]
    return place, (int((~has).sum()), float((lacking**2 / wanted.sum(0)).sum()))
