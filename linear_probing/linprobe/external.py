"""External validation: trained on one data set, tested on the test images of another.

Layouts: any two data sets; or, as in MIRAGE's benchmark, ``<A>_cross_train/{train,val}/<Class>``
and ``<B>_cross_test/test/<Class>``, of which neither is one by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from linprobe.datasets import DataSet
from retfiner.common.errors import InputError, shorten


def external(ours: DataSet, theirs: DataSet, label_map: Mapping[str, str]) -> DataSet:
    """Put the test images of another data set in the place of our own, whose classes stay.

    ``label_map`` gives our class by theirs, where the names differ. Images of a class that ours
    does not have are left out and counted.

    Raises:
        InputError: If the map names a class that is not there, or fewer than two are left.
    """
    unknown = sorted(set(label_map.values()) - set(ours.classes))
    if unknown:
        raise InputError(
            f"--label_map leads to classes that {ours.name} does not have",
            got=shorten(unknown),
            expected=f"theirs=ours, of {', '.join(ours.classes)}",
            remedy="choose with --data_set what is trained on",
        )
    test = theirs.splits["test"]
    names = [label_map.get(name, name) for name in theirs.classes]
    index = np.array([ours.classes.index(n) if n in ours.classes else -1 for n in names])
    labels = index[test.labels]
    rows = np.flatnonzero(labels >= 0)
    if len(set(labels[rows].tolist())) < 2:
        raise InputError(
            f"{theirs.name} shares fewer than two classes with {ours.name}",
            got=", ".join(theirs.classes),
            expected=f"classes called {', '.join(ours.classes)}",
            remedy="say which are the same with --label_map theirs=ours, or choose with --data_set",
        )
    notes = [note for note in ours.notes if "test" not in note]
    left = [name for name, k in zip(theirs.classes, index.tolist(), strict=True) if k < 0]
    if len(rows) < len(test):
        notes.append(f"{len(test) - len(rows)} test images of {shorten(left)} are left out: "
                     f"{ours.name} has no such class.")  # fmt: skip
    absent = sorted(set(ours.classes) - {ours.classes[k] for k in labels[rows]})
    if absent:
        notes.append(f"No image of {shorten(absent)} in {theirs.name}.")
    split = replace(test.subset(rows), labels=labels[rows].astype(np.int64))
    content = repr((ours.sha256, theirs.sha256, sorted(label_map.items())))
    return DataSet(
        f"{ours.name}_to_{theirs.name}",
        ours.classes,
        {**ours.splits, "test": split},
        notes,
        hashlib.sha256(content.encode()).hexdigest(),
        train_set=ours.name,
    )


def check_label_map(label_map: Mapping[str, str], sets: list[DataSet]) -> None:
    """Refuse a map of classes that no external data set has.

    Raises:
        InputError: If there is one; it is named.
    """
    known = {name for one in sets for name in one.classes}
    unknown = sorted(set(label_map) - known)
    if unknown:
        raise InputError(
            "--label_map names classes that no external data set has",
            got=shorten(unknown),
            expected=f"theirs=ours, of {shorten(sorted(known), 20)}",
        )
