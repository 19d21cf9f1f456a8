"""Downloads that are in the probing layout already, such as the zips of the MIRAGE benchmark.

``{train,val,test}/<Class>/`` with images, at the top of the download or below folders of it. The
files are taken as they are, byte for byte, and their split is kept.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from linprobe.prepare.files import list_files
from linprobe.prepare.spec import DataSetSpec
from linprobe.prepare.tables import SPLITS
from linprobe.prepare.writing import Job, Plan, copy_file
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import SPLIT_TABLE, owner_of, read_split_table

if TYPE_CHECKING:
    pass

NEVER = ("Kermany", "folder")
"""Data sets whose split, where they come with one, is read and checked by their own file."""
_DEPTH = 3  # folders between the top of the download and the splits


def find_ready_made(source: Path, spec: DataSetSpec) -> Plan | None:
    """Find a data set that is in the probing layout.

    Returns:
        What was found; None if the download is not in this layout.

    Raises:
        InputError: If there are several such data sets, none of them of this name.
    """
    found = [folder for folder in _folders(source) if _is_ready(folder)]
    if len(found) > 1:
        known = {spec.name.lower(), spec.alias.lower()}
        named = [folder for folder in found if folder.name.lower() in known]
        if len(named) != 1:
            raise InputError(
                "The download holds several data sets with train, val and test",
                got=shorten([str(folder.relative_to(source)) for folder in found]),
                expected=f"one of the name {spec.name}",
                remedy="give the folder of one of them as --source",
            )
        found = named
    return _list(found[0], source, spec) if found else None


def _folders(source: Path) -> list[Path]:
    """List the folders in which the splits may lie."""
    found = []
    for place, below, _ in os.walk(source):
        depth = len(Path(place).relative_to(source).parts)
        below[:] = sorted(name for name in below if not name.startswith("."))
        found.append(Path(place))
        if depth >= _DEPTH or set(SPLITS) <= set(below):
            below.clear()
    return found


def _is_ready(folder: Path) -> bool:
    return all((folder / split).is_dir() and _images_of(folder / split) for split in SPLITS)


def _images_of(split: Path) -> list[Path]:
    """List the images of a split, which lie in folders of classes."""
    from retfiner.vision.images import READERS  # delayed: it needs torch, --help does not

    return [split / path for path in list_files(split, tuple(READERS))
            if len(path.parts) > 1 and (split / path).is_file()]  # fmt: skip


def _list(folder: Path, source: Path, spec: DataSetSpec) -> Plan:
    jobs, rows = [], []
    table = read_split_table(folder)
    n_files = 0
    for split in SPLITS:
        n_files += sum(path.is_file() for path in (folder / split).rglob("*"))
        for path in _images_of(folder / split):
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
    import pandas as pd  # half a second: wrong paths are told without it

    table = pd.DataFrame(rows, columns=["image", "class", "patient", "split", "source"])
    classes = sorted(set(table["class"]))
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
    return Plan(jobs, table, notes, done, may_share=True)
