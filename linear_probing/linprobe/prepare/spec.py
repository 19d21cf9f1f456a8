"""What a data set's own file tells the rest: who it is, and which B-scans lie where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linprobe.prepare.files import safe_stem, tolerate, unique_names
from retfiner.common.errors import InputError
from retfiner.common.patients import Owner, same_people
from retfiner.common.placeholders import is_placeholder

GrayImage = NDArray[np.uint8]
"""(H, W), 8 bit, as it is written."""

BScanChoice = Literal["central", "all"] | int
"""Which B-scans of a volume: the central one (index n // 2), all, or the one with this index."""

SliceAxis = Literal["first", "last"]

Slices = Sequence[tuple[str, Callable[[], GrayImage]]]
"""Of each B-scan of a volume, in order: where it comes from, and how it is read."""


@dataclass(frozen=True)
class Options:
    """What a user may choose about how a download is read: flags of ``prepare_dataset.py``."""

    bscan: BScanChoice = "central"
    label: Literal["bscan", "patient"] = "bscan"
    slice_axis: SliceAxis | None = None
    labels: Path | None = None
    patient_regex: str | None = None


@dataclass(frozen=True)
class BScan:
    """One B-scan of a download, not read yet.

    Attributes:
        name: Stem of the file to write, made safe and unique later.
        label: Class, and name of the class folder.
        patient: Whose it is, unique over all classes; None where nobody knows.
        source: File it comes from, relative to the download, with ``#k`` for slice k.
        read: Reads it; can be sent to another process. Raises InputError naming the file.
        split: The data set's own split (``train``, ``val`` or ``test``), where it is kept.
        about: What else is known, by column of :data:`retfiner.common.patients.ABOUT`.
    """

    name: str
    label: str
    patient: str | None
    source: str
    read: Callable[[], GrayImage]
    split: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)


def bscans_of(
    slices: Slices, choice: BScanChoice, volume: str, name: str, label: str, patient: str
) -> list[BScan]:
    """Give the B-scans that are wanted of a volume, which errors call ``volume``.

    The central one of n is index n // 2, counted from 0.

    Raises:
        InputError: If the volume has no B-scan at the index.
    """
    if choice == "all":
        return [BScan(f"{name}_{k:03d}", label, patient, *slices[k]) for k in range(len(slices))]
    index = len(slices) // 2 if choice == "central" else choice
    if not 0 <= index < len(slices):
        raise InputError(
            f"{volume} has no B-scan {index}",
            got=f"{len(slices)} B-scans",
            expected=f"an index from 0 to {len(slices) - 1}" if slices else "at least one B-scan",
            remedy="give a smaller --bscan, or central",
        )
    return [BScan(name, label, patient, *slices[index])]


def one_spelling(bscans: Sequence[BScan]) -> tuple[list[BScan], list[str]]:
    """Give a patient in several spellings one, and one who is a placeholder none; and a note."""
    patients = [bscan.patient or "" for bscan in bscans]
    known = ["" if is_placeholder(name) else name for name in patients]
    owners, notes = same_people([Owner(name) for name in known])
    return [
        replace(bscan, patient=owner.patient or None)
        for bscan, owner in zip(bscans, owners, strict=True)
    ], notes


class LeftOut(NamedTuple):
    """Rows or files that cannot be used, of ``total``: a few are told, many are an error."""

    problem: str
    items: Sequence[str]
    total: int
    remedy: str


@dataclass(frozen=True)
class Listing:
    """What was found in a download.

    Attributes:
        bscans: The B-scans, in a fixed order.
        notes: What a user must know: patients merged, own split kept.
        left_out: What could not be used.
        counts: How many there are, by class, of what was published by number; None: of B-scans.
        pictures: Written beside the data set, by file name: what a user should look at.
    """

    bscans: list[BScan]
    notes: list[str]
    left_out: list[LeftOut] = field(default_factory=list)
    counts: Mapping[str, int] | None = None
    pictures: Mapping[str, Callable[[], GrayImage]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSetSpec:
    """A data set that can be prepared.

    Attributes:
        name: As the probing scripts name it.
        task: What is told apart, in a few words.
        classes: Class names, as folders; where a download has none of one, that is an error.
        licence: Of the data.
        where: Address of the download.
        citation: Whom to cite.
        patients: How a patient is known, in words; says so where none is.
        find: Finds the B-scans in an unpacked download.
        layout: How files lie in a download, for the error where there are none of a class.
        table: A table that is downloaded apart from the images and is needed.
        published: How many there are by class, or altogether (an empty name), of ``unit``.
        unit: What was counted.
        volumes: Whether ``--bscan`` applies.
        zero_borders: Whether white borders left by rotation are zeroed by default.
        split: Default shares of train, val and test.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    licence: str
    where: str
    citation: str
    patients: str
    find: Callable[[Path, Options], Listing]
    layout: str = "the files as published"
    table: str = ""
    published: Mapping[str, int] = field(default_factory=dict)
    unit: str = "B-scans"
    volumes: bool = False
    zero_borders: bool = False
    split: tuple[float, float, float] = (0.5, 0.25, 0.25)

    def list_bscans(self, folder: Path, options: Options) -> Listing:
        """Find the B-scans of a download, their names made unique, and check what holds for all.

        Notes say what was left out, and where counts are not the published ones.

        Raises:
            InputError: If a class is absent or unknown, much could not be used, or whatever the
                data set's own file refuses.
        """
        found = self.find(folder, options)
        labels = {bscan.label for bscan in found.bscans}
        missing = [name for name in self.classes if name not in labels]
        unknown = sorted(labels - set(self.classes)) if self.classes else []
        if unknown:
            raise InputError(
                f"The download has classes that {self.name} does not have",
                got=", ".join(unknown),
                expected=", ".join(self.classes),
            )
        if missing:
            raise InputError(
                f"Nothing of {' and '.join(missing)} was found in {folder}",
                got=", ".join(sorted(labels)) or "no image of this data set",
                expected=self.layout,
                remedy="give the whole download; of several archives, all: --source <one> "
                f"<another>. It is at {self.where}",
            )
        notes = [*found.notes]
        for left_out in found.left_out:
            notes += tolerate(*left_out)
        counts = Counter(b.label for b in found.bscans) if found.counts is None else found.counts
        notes += self._other_counts(counts)
        known, spellings = one_spelling(found.bscans)
        notes += spellings
        names = unique_names([safe_stem(bscan.name) for bscan in known])
        bscans = [replace(b, name=name) for b, name in zip(known, names, strict=True)]
        return replace(found, bscans=bscans, notes=notes, left_out=[])

    def _other_counts(self, counts: Mapping[str, int]) -> list[str]:
        """Say where a download has another number of something than was published."""
        found, published = (
            ", ".join(f"{name} {count}".strip() for name, count in numbers.items())
            for numbers in (
                {n: counts.get(n, 0) if n else sum(counts.values()) for n in self.published},
                self.published,
            )
        )
        note = f"Not the published number of {self.unit}: {found}; published: {published}."
        return [note] * (found != published)
