"""Downloads that are in the probing layout already, such as the zips of the MIRAGE benchmark.

``{train,val,test}/<Class>/`` with images, at the top of the download or below folders of it. The
files are taken as they are, byte for byte, and their split is kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from linprobe.prepare.splits import SPLITS
from linprobe.prepare.writing import Job, copy_file
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import SPLIT_TABLE, owner_of, read_split_table

NEVER = ("Kermany",)
"""Data sets whose download has a split of its own, which their own file reads."""
_DEPTH = 3  # folders between the top of the download and the splits


@dataclass(frozen=True)
class ReadyMade:
    """Images in the probing layout.

    Attributes:
        folder: Folder with train, val and test.
        jobs: What to copy.
        labels: Class of each.
        patients: Whose each is, as the table beside it or else its name says; empty where neither.
        splits: Split of each.
        notes: What a user must know.
    """

    folder: Path
    jobs: list[Job]
    labels: list[str]
    patients: list[str]
    splits: list[str]
    notes: list[str]


def find_ready_made(source: Path, names: tuple[str, ...]) -> ReadyMade | None:
    """Find a data set that is in the probing layout.

    Returns:
        What was found; None if the download is not in this layout.

    Raises:
        InputError: If there are several such data sets, none of them of this name.
    """
    found = [folder for folder in _folders(source) if _is_ready(folder)]
    if len(found) > 1:
        known = {name.lower() for name in names}
        named = [folder for folder in found if folder.name.lower() in known]
        if len(named) != 1:
            raise InputError(
                "The download holds several data sets with train, val and test",
                got=shorten([str(folder.relative_to(source)) for folder in found]),
                expected=f"one of the name {names[0]}",
                remedy="give the folder of one of them as --source",
            )
        found = named
    return _list(found[0], source) if found else None


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
    return all(any(_images_of(folder / split)) for split in SPLITS)


def _images_of(split: Path) -> dict[str, list[Path]]:
    """List the images of a split by class."""
    from retfiner.vision.images import READERS  # delayed: it needs torch, --help does not

    if not split.is_dir():
        return {}
    found = {}
    for folder in sorted(path for path in split.iterdir() if path.is_dir()):
        images = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in READERS and not path.name.startswith(".") and path.is_file()
        )
        if images and not folder.name.startswith("."):
            found[folder.name] = images
    return found


def _list(folder: Path, source: Path) -> ReadyMade:
    ready = ReadyMade(folder, [], [], [], [], [])
    table = read_split_table(folder)
    n_files = 0
    for split in SPLITS:
        n_files += sum(path.is_file() for path in (folder / split).rglob("*"))
        for label, images in _images_of(folder / split).items():
            for path in images:
                image = path.relative_to(folder).as_posix()
                origin = path.relative_to(source).as_posix()
                ready.jobs.append(Job(image, partial(copy_file, source=path), origin))
                ready.labels.append(label)
                ready.patients.append(owner_of(path, folder, table).patient)
                ready.splits.append(split)
    ready.notes.append("The download is in the probing layout; its files and its split were kept.")
    if table:
        ready.notes.append(f"Patients are those of the {SPLIT_TABLE} beside the images.")
    if n_files > len(ready.jobs):
        ready.notes.append(f"Left out, as no images: {n_files - len(ready.jobs)} files.")
    return ready
