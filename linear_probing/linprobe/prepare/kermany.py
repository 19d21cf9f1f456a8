"""Kermany (UCSD): CNV, DME, drusen or normal, more than 84,000 B-scans of a Heidelberg Spectralis.

As downloaded, version 2 or 3, or from a mirror that added ``val``::

    [CellData/OCT | OCT2017]/{train,(val),test}/{CNV,DME,DRUSEN,NORMAL}/CNV-1016042-1.jpeg

or, as subsets are passed on, the four class folders without a split.

- Label: the class folder.
- Patient: the bare number in the file's name.
- B-scans: single images.
- Split: the download's own is kept; a missing ``val`` is taken from ``train``, by patient. Without
  a split it is ours, random by patient. Shares are 80/10/10, as the set is large.

Traps: 896 of 4,657 numbers recur in several classes. Whether they are the same patients is not
published; they are taken to be, which can only make the split stricter. The own split has such
numbers on both sides: of a patient in ``test`` nothing is kept in ``train`` and ``val``, of one in
``val`` nothing in ``train``, and how much that was is said. Version 3 comes with chest X-rays whose
normal ones are named just like normal B-scans, and a mirror holds everything twice; both are told
apart. B-scans were rotated to level the retina, which left white borders; they are set to zero.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from linprobe.prepare.finding import (
    IMAGES,
    list_files,
    renamed,
    require_classes,
    safe_stem,
    tolerate,
)
from linprobe.prepare.pixels import read_gray
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options
from retfiner.common.errors import InputError

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
STRICTEST_FIRST = ("test", "val", "train")
"""A patient in several parts of the own split stays in the first of these."""
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NAME = re.compile(r"(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+.*", re.IGNORECASE)


class Image(NamedTuple):
    """An image by what its path says."""

    split: str | None
    label: str
    patient: str
    path: PurePosixPath


def list_bscans(folder: Path, options: Options) -> Listing:
    """Find the images, each once, without those whose patient is in a stricter part.

    Raises:
        InputError: If a class is missing, or many images are not named as published.
    """
    everything = list_files(folder, IMAGES)
    files = [path for path in everything if _class_of(path) is not None]
    chests = _chest_folders(everything)
    scans = [path for path in files if not (chests and chests.intersection(path.parents))]
    images, nameless = _images(scans)
    notes = tolerate(
        "images are not named <class>-<patient>-<number>",
        nameless,
        len(scans),
        "give the files as downloaded",
    )
    if len(scans) < len(files):
        notes.append(f"{len(files) - len(scans)} chest X-rays left out.")
    once, n_copies = _each_once(folder, images)
    if n_copies:
        notes.append(f"{n_copies} images lay there twice and were taken once.")
    kept, told = _patients_apart(once)
    layout = "{train,test}/{CNV,DME,DRUSEN,NORMAL}/<class>-<patient>-<number>.jpeg"
    require_classes({image.label for image in kept}, CLASSES, folder, layout)
    bscans = [
        BScan(
            name=safe_stem(image.path.stem),
            label=image.label,
            patient=image.patient,
            source=str(image.path),
            read=partial(read_gray, folder / image.path),
            split=image.split,
        )
        for image in kept
    ]
    return Listing(renamed(bscans), notes + told + _recurring(once))


def _class_of(path: PurePosixPath) -> str | None:
    label = path.parent.name.upper()
    return label if label in CLASSES else None


def _chest_folders(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """Find the folders of chest X-rays: called so, or with PNEUMONIA among their classes."""
    found = set()
    for place in {path.parent for path in files}:
        if place.name.casefold() == "pneumonia":
            found.add(place.parent)
        for part in place.parents:
            if part.name.casefold().startswith("chest"):
                found.add(part)
    return found


def _images(paths: Sequence[PurePosixPath]) -> tuple[list[Image], list[str]]:
    images, nameless = [], []
    for path in paths:
        match, label = _NAME.fullmatch(path.stem), _class_of(path)
        if match is None or label is None:
            nameless.append(str(path))
            continue
        split = _SPLITS.get(path.parent.parent.name.casefold())
        images.append(Image(split, label, str(int(match[1])), path))
    return images, nameless


def _each_once(folder: Path, images: Sequence[Image]) -> tuple[list[Image], int]:
    """Take images of the same split, class and name once."""
    once: dict[tuple[str | None, str, str], Image] = {}
    for image in images:
        key = (image.split, image.label, image.path.stem.casefold())
        first = once.setdefault(key, image)
        if first is not image and _size(folder, first) != _size(folder, image):
            raise InputError(
                f"Two different images are named {image.path.name}",
                got=f"{first.path} and {image.path}",
                expected="copies of the same image",
                remedy="give one copy of the download",
            )
    return list(once.values()), len(images) - len(once)


def _size(folder: Path, image: Image) -> int:
    return (folder / image.path).stat().st_size


def _patients_apart(images: Sequence[Image]) -> tuple[list[Image], list[str]]:
    """Keep each patient in the strictest part of the own split that has it."""
    splits: dict[str, set[str | None]] = defaultdict(set)
    for image in images:
        splits[image.patient].add(image.split)
    stays = {
        patient: next((name for name in STRICTEST_FIRST if name in there), None)
        for patient, there in splits.items()
    }
    kept, notes = [], []
    dropped: Counter[tuple[str, str]] = Counter()
    shared: dict[tuple[str, str], set[str]] = defaultdict(set)
    for image in images:
        stay = stays[image.patient]
        if image.split is None or stay is None or stay == image.split:
            kept.append(image)
        else:
            dropped[image.split, stay] += 1
            shared[image.split, stay].add(image.patient)
    if any(image.split is not None for image in kept):
        notes.append("The download's own split is kept.")
    for (loser, winner), count in sorted(dropped.items()):
        total = sum(image.split == loser for image in images)
        notes.append(
            f"{len(shared[loser, winner])} patients (bare numbers) are in {loser} as well as in "
            f"{winner}: their {count} of {total} images in {loser} were left out."
        )
    return kept, notes


def _recurring(images: Sequence[Image]) -> list[str]:
    """Count the numbers that recur in several classes."""
    classes: dict[str, set[str]] = defaultdict(set)
    for image in images:
        classes[image.patient].add(image.label)
    several = sum(len(labels) > 1 for labels in classes.values())
    if not several:
        return []
    return [
        f"{several} of {len(classes)} patient numbers recur in several classes; each was taken for "
        "one patient."
    ]


SPEC = DataSetSpec(
    name="Kermany",
    task="CNV, DME, drusen or normal",
    classes=CLASSES,
    licence="CC BY 4.0",
    where="https://data.mendeley.com/datasets/rscbjbr9sj/3",
    citation=(
        "Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep "
        "Learning. Cell 172(5), 1122-1131, 2018"
    ),
    patients="bare number in the file name, the same in all classes",
    list_bscans=list_bscans,
    zero_borders=True,
    split=(0.8, 0.1, 0.1),
)
