"""Patients divided with the classes in proportion, by scikit-learn's stratified grouped folds.

Several folds make a split: with shares of 0.5, 0.25 and 0.25, two of four are the training set.
Greedy folds may put all patients of a rare class on one side and, of few and large patients, miss
the shares. So several shuffles are tried; where a class is absent somewhere, or the shares are not
met, single patients are moved.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retfiner.common.seeds import derive_seed

_MOST_FOLDS = 20
_TRIES = 10
_CLOSE_ENOUGH = 0.01
_ROUNDS = 20
_MANY_GROUPS = 2000  # the greedy folds take seconds for more; one try is close enough then

Groups = dict[str, dict[str, int]]
"""Images of each class by patient."""
Assignment = dict[str, str]
"""Split by patient."""


def divide_groups(groups: Groups, shares: dict[str, float], seed: int) -> Assignment:
    """Divide patients so that the classes are spread in proportion to the shares.

    Args:
        groups: Images of each class by patient.
        shares: Share by split; of the sum, so that they need not add up to 1.
        seed: Any non-negative integer.

    Returns:
        Split by patient. Each class with at least as many patients as there are splits is in all
        of them, as far as patients with several classes allow.
    """
    total = sum(shares.values())
    wanted = {split: share / total for split, share in shares.items()}
    if len(groups) < len(wanted):
        return dict(zip(groups, wanted, strict=False))  # divide() says which split is empty
    sizes: dict[str, int] = defaultdict(int)
    for counts in groups.values():
        for label, count in counts.items():
            sizes[label] += count
    # scikit-learn makes no more folds than the largest class has images.
    parts = _parts(list(wanted.values()), min(len(groups), max(sizes.values())))
    best: tuple[float, Assignment] | None = None
    for attempt in range(1 if len(groups) > _MANY_GROUPS else _TRIES):
        folds = _folds(groups, sum(parts), derive_seed("folds", seed, attempt) % 2**32)
        assigned = _join_folds(groups, folds, dict(zip(wanted, parts, strict=True)))
        _fill_empty_splits(groups, assigned, list(wanted))
        _spread_rare_classes(groups, assigned, list(wanted))
        if _deviation(groups, assigned, wanted) > _CLOSE_ENOUGH:
            _improve(groups, assigned, wanted)
        deviation = _deviation(groups, assigned, wanted)
        if best is None or deviation < best[0]:
            best = deviation, assigned
        if deviation <= _CLOSE_ENOUGH:
            break
    if best is None:
        raise ValueError("no attempt was made")
    return best[1]


def _parts(shares: Sequence[float], most: int) -> list[int]:
    """Find the fewest folds whose multiples come close to the shares: 2, 1, 1 for a half."""
    best: tuple[float, list[int]] = (np.inf, [1] * len(shares))
    for n_folds in range(len(shares), max(len(shares), min(_MOST_FOLDS, most)) + 1):
        parts = [max(1, round(share * n_folds)) for share in shares]
        error = max(abs(k / sum(parts) - share) for k, share in zip(parts, shares, strict=True))
        if sum(parts) <= most and error < best[0] - 1e-9:
            best = error, parts
        if error < 0.005:
            break
    return best[1]


def _folds(groups: Groups, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Number the fold of each patient."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    classes = sorted({label for counts in groups.values() for label in counts})
    labels, owners = [], []
    for index, counts in enumerate(groups.values()):
        for label, count in sorted(counts.items()):
            labels += [classes.index(label)] * count
            owners += [index] * count
    y, owner = np.array(labels), np.array(owners)
    single = len(owner) == len(groups)  # an image a patient: the same folds, much faster
    kind = StratifiedKFold if single else StratifiedGroupKFold
    found = np.zeros(len(groups), dtype=np.int64)
    if n_folds > np.bincount(y).max():  # too few images to stratify anything
        return np.random.default_rng(seed).permutation(len(groups)) % n_folds
    with warnings.catch_warnings():
        # A class with fewer images than folds is what _spread_rare_classes is for.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splitter = kind(n_folds, shuffle=True, random_state=seed)
        for fold, (_, rows) in enumerate(splitter.split(y, y, None if single else owner)):
            found[owner[rows]] = fold
    return found


def _join_folds(groups: Groups, folds: NDArray[np.int64], parts: dict[str, int]) -> Assignment:
    """Make splits of folds, as many of each as ``parts`` says."""
    order = [split for split, count in parts.items() for _ in range(count)]
    return {key: order[fold] for key, fold in zip(groups, folds.tolist(), strict=True)}


def _fill_empty_splits(groups: Groups, assigned: Assignment, splits: list[str]) -> None:
    """Give a split without patients the smallest one of the split with the most."""
    for split in splits:
        there = Counter(assigned.values())
        if not there[split]:
            fullest = max(splits, key=lambda name: there[name])
            movable = [key for key in assigned if assigned[key] == fullest]
            assigned[min(movable, key=lambda key: (sum(groups[key].values()), key))] = split


def _spread_rare_classes(groups: Groups, assigned: Assignment, splits: list[str]) -> None:
    """Move patients until each class that has enough of them is in every split.

    A patient is moved only from where another with each of its classes remains, so that no step
    undoes another; of those that can be moved, one with few images. A class that is too rare for
    all splits is in train: what is not learned cannot be tested.
    """
    having: dict[str, list[str]] = defaultdict(list)
    for key, counts in groups.items():
        for label in counts:
            having[label].append(key)

    def can_leave(key: str, but: str | None) -> bool:
        """Say whether all classes of a patient, ``but`` one, would still be where it is now."""
        others = [having[label] for label in groups[key] if label != but] or [list(groups)]
        return all(
            any(other != key and assigned[other] == assigned[key] for other in having_it)
            for having_it in others
        )

    for label in sorted(having, key=lambda name: (len(having[name]), name)):
        for split in splits:
            if any(assigned[key] == split for key in having[label]):
                continue
            rare = label if split == "train" else None
            movable = [key for key in having[label] if can_leave(key, rare)]
            if movable:
                chosen = min(movable, key=lambda key: (sum(groups[key].values()), key))
                assigned[chosen] = split


def _improve(groups: Groups, assigned: Assignment, shares: dict[str, float]) -> None:
    """Move single patients as long as that brings the counts closer to the shares.

    What is lowered is the sum over classes, and over all images together, of the squared distances
    from the wanted counts, each divided by the size of the class. No class leaves a split.
    """
    labels = sorted({label for counts in groups.values() for label in counts})
    share = np.array(list(shares.values()))
    splits = list(shares)
    held = np.array([[counts.get(label, 0) for label in labels] for counts in groups.values()])
    held = np.concatenate([held, held.sum(1, keepdims=True)], axis=1)  # (patients, classes + 1)
    place = np.array([splits.index(assigned[key]) for key in groups])
    counts = np.stack([held[place == s].sum(0) for s in range(len(splits))])
    owners = np.stack([(held[place == s] > 0).sum(0) for s in range(len(splits))])
    size = counts.sum(0)
    excess = counts - share[:, None] * size
    for _ in range(_ROUNDS):
        moved = False
        for index, own in enumerate(held):
            there = place[index]
            if ((own > 0) & (owners[there] < 2)).any():
                continue
            # Change of the sum when the patient goes from its split to each other one.
            change = (2 * own * (excess - excess[there] + own) / size).sum(1)
            change[there] = 0
            target = int(change.argmin())
            if change[target] < -1e-9:
                excess[there] -= own
                excess[target] += own
                owners[there] -= own > 0
                owners[target] += own > 0
                place[index] = target
                moved = True
        if not moved:
            break
    assigned.update(zip(groups, (splits[s] for s in place), strict=True))


def _deviation(groups: Groups, assigned: Assignment, shares: dict[str, float]) -> float:
    """Give the largest deviation from a share: of all images, or of a class, weighted by size.

    A class's deviation counts by the square root of its part of the images, so that seven images
    do not outweigh a thousand.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(shares, 0))
    for key, classes in groups.items():
        for label, count in classes.items():
            counts[label][assigned[key]] += count
            counts[""][assigned[key]] += count  # no class has an empty name: all images
    n_images = sum(counts[""].values())
    worst = 0.0
    for by_split in counts.values():
        size = sum(by_split.values())
        weight = float(np.sqrt(size / n_images))
        for split, share in shares.items():
            worst = max(worst, weight * abs(by_split[split] / size - share))
    return worst
