"""Downloads that are in the probing layout already, such as the zips of the MIRAGE benchmark.

``{train,val,test}/<Class>/`` with images, at the top of the download or below folders of it. The
files are taken as they are, byte for byte, and their split is kept.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from linprobe.prepare.files import list_files
from linprobe.prepare.spec import DataSetSpec
from linprobe.prepare.tables import SPLITS, split_rows
from linprobe.prepare.writing import Job, Plan, copy_file
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import SPLIT_TABLE, owner_of, read_split_table

NEVER = ("Kermany", "folder")
"""Data sets whose split, where they come with one, is read and checked by their own file."""
_DEPTH = 3  # folders between the top of the download and the splits


def find_ready_made(source: Path, spec: DataSetSpec) -> Plan | None:
    """Find a data set that is in the probing layout; None if the download is not.

    Raises:
        InputError: If there are several such data sets, none of them of this name.
    """
    listed = ((folder, _images_by_split(folder)) for folder in _folders(source))
    found = {folder: images for folder, images in listed if all(images.values())}
    if len(found) > 1:
        known = {spec.name.lower(), spec.alias.lower()}
        named = {place: found[place] for place in found if place.name.lower() in known}
        if len(named) != 1:
            raise InputError(
                "The download holds several data sets with train, val and test",
                got=shorten([str(folder.relative_to(source)) for folder in found]),
                expected=f"one of the name {spec.name}",
                remedy="give the folder of one of them as --source",
            )
        found = named
    return next((_plan(folder, images, source, spec) for folder, images in found.items()), None)


def _folders(source: Path) -> list[Path]:
    """List the folders that hold the three splits."""
    found = []
    for place, below, _ in os.walk(source):
        depth = len(Path(place).relative_to(source).parts)
        below[:] = sorted(name for name in below if not name.startswith("."))
        ready = set(SPLITS) <= set(below)
        found += [Path(place)] * ready
        if ready or depth >= _DEPTH:
            below.clear()
    return found


def _images_by_split(folder: Path) -> dict[str, list[Path]]:
    """List the images of each split, which lie in folders of classes."""
    from retfiner.vision.images import READERS  # delayed: it needs torch, --help does not

    return {
        split: [folder / split / path for path in list_files(folder / split, tuple(READERS))
                if len(path.parts) > 1 and (folder / split / path).is_file()]
        for split in SPLITS
    }  # fmt: skip


def _plan(folder: Path, images: dict[str, list[Path]], source: Path, spec: DataSetSpec) -> Plan:
    jobs, rows = [], []
    table = read_split_table(folder)
    n_files = 0
    for split, paths in images.items():
        n_files += sum(path.is_file() for path in (folder / split).rglob("*"))
        for path in paths:
            image = path.relative_to(folder)
            origin = path.relative_to(source).as_posix()
            jobs.append(Job(image.as_posix(), partial(copy_file, source=path), origin))
            patient = owner_of(path, folder, table).patient
            rows.append((image.as_posix(), image.parts[1], patient, split, origin))
    notes = ["The download is in the probing layout; its files and its split were kept."]
    if table:
        notes.append(f"Patients are those of the {SPLIT_TABLE} beside the images.")
    if n_files > len(jobs):
        notes.append(f"Left out, as no images: {n_files - len(jobs)} files.")
    unknown = sum(not patient for _, _, patient, _, _ in rows)
    if unknown:
        notes.append(f"The patient of {unknown} of {len(jobs)} images is not known.")
    classes = sorted({row[1] for row in rows})
    if spec.classes and classes != sorted(spec.classes):
        notes.append(
            f"Its classes are {shorten(classes)}; prepared from the authors' own download they "
            f"would be {shorten(sorted(spec.classes))}."
        )
    done = {
        "files": "copied as they were, in the probing layout already",
        "patients": "as far as a table beside the images, or else their names, tell them",
        "split": {"rule": "the download's own"},
    }
    return Plan(jobs, split_rows(rows), notes, done, may_share=True)
