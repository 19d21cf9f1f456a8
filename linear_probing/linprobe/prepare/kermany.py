"""Kermany (UCSD): CNV, DME, drusen or normal, more than 84,000 B-scans of a Heidelberg Spectralis.

As downloaded, version 2 or 3, or from a mirror that added ``val``::

    [CellData/OCT | OCT2017]/{train,(val),test}/{CNV,DME,DRUSEN,NORMAL}/CNV-1016042-1.jpeg

or, as subsets are passed on, the four class folders without a split.

896 of 4,657 patient numbers recur in several classes; each is taken for one patient, which can only
make the split stricter. The own split has such numbers on both sides: of a patient in ``test``
nothing is kept in ``train`` and ``val``, of one in ``val`` nothing in ``train``. Version 3 comes
with chest X-rays whose normal ones are named just like normal B-scans, and a mirror holds
everything twice.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import IMAGES, list_files
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options
from linprobe.prepare.splits import SPLIT_OF
from linprobe.prepare.volumes import read_gray
from retfiner.common.errors import InputError
from retfiner.common.patients import in_several_classes

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
STRICTEST_FIRST = ("test", "val", "train")
"""A patient in several parts of the own split stays in the first of these."""
_NAME = re.compile(r"(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+.*", re.IGNORECASE)


def find(folder: Path, _options: Options) -> Listing:
    """Find the images, each once, without those whose patient is in a stricter part.

    Raises:
        InputError: If two different images have the same split, class and name.
    """
    everything = list_files(folder, IMAGES)
    files = [path for path in everything if path.parent.name.upper() in CLASSES]
    chests = _chest_folders(everything)
    scans = [path for path in files if not (chests and chests.intersection(path.parents))]
    images: list[BScan] = []
    nameless = []
    for path in scans:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            nameless.append(str(path))
            continue
        label, split = path.parent.name.upper(), SPLIT_OF.get(path.parent.parent.name.casefold())
        read = partial(read_gray, folder / path)
        images.append(BScan(path.stem, label, str(int(match[1])), str(path), read, split))
    once = _each_once(folder, images)
    kept, told = _patients_apart(once)
    notes = [
        *[f"{len(files) - len(scans)} chest X-rays left out."] * (len(scans) < len(files)),
        *[f"{len(images) - len(once)} images lay there twice and were taken once."]
        * (len(once) < len(images)),
        *told,
        *_recurring(once),
    ]
    problem = "images are not named <class>-<patient>-<number>"
    left_out = LeftOut(problem, nameless, len(scans), "give the files as downloaded")
    return Listing(kept, notes, [left_out])


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


def _each_once(folder: Path, images: Sequence[BScan]) -> list[BScan]:
    """Take images of the same split, class and name once."""
    once: dict[tuple[str | None, str, str], BScan] = {}
    for image in images:
        first = once.setdefault((image.split, image.label, image.name.casefold()), image)
        sizes = {(folder / one.source).stat().st_size for one in (first, image)}
        if len(sizes) > 1:
            raise InputError(
                f"Two different images are named {PurePosixPath(image.source).name}",
                got=f"{first.source} and {image.source}",
                expected="copies of the same image",
                remedy="give one copy of the download",
            )
    return list(once.values())


def _patients_apart(images: Sequence[BScan]) -> tuple[list[BScan], list[str]]:
    """Keep each patient in the strictest part of the own split that has it."""
    splits: dict[str | None, set[str | None]] = defaultdict(set)
    for image in images:
        splits[image.patient].add(image.split)
    stays = {
        patient: next((name for name in STRICTEST_FIRST if name in there), None)
        for patient, there in splits.items()
    }
    kept, notes = [], []
    dropped: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for image in images:
        stay = stays[image.patient]
        if image.split is None or stay is None or stay == image.split:
            kept.append(image)
        else:
            dropped[image.split, stay].append(image.patient)
    if any(image.split is not None for image in kept):
        notes.append("The download's own split is kept.")
    total = Counter(image.split for image in images)
    for (loser, winner), patients in sorted(dropped.items()):
        notes.append(
            f"{len(set(patients))} patients (bare numbers) are in {loser} as well as in {winner}: "
            f"their {len(patients)} of {total[loser]} images in {loser} were left out."
        )
    return kept, notes


def _recurring(images: Sequence[BScan]) -> list[str]:
    """Count the numbers that recur in several classes."""
    several = len(in_several_classes((image.patient or "", image.label) for image in images))
    total = len({image.patient for image in images})
    note = f"{several} of {total} patient numbers recur in several classes; each was taken for one"
    return [f"{note} patient."] * bool(several)


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
    find=find,
    layout="{train,test}/{CNV,DME,DRUSEN,NORMAL}/<class>-<patient>-<number>.jpeg",
    zero_borders=True,
    split=(0.8, 0.1, 0.1),
)
