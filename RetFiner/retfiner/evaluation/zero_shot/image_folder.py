"""Labelled images: ``<data set>/<split>/<Class>/`` as prepared, or ``<Class>/`` alone."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.common.patients import (
    Owner,
    check_images,
    owner_in_name,
    owner_of,
    read_split_table,
    same_people,
)
from retfiner.common.progress import track
from retfiner.vision.images import READERS, list_image_files

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageFolder:
    """The N images of one split, by class and name, in the order probing has them.

    ``folder`` holds the classes' folders. The split is None for a data set without any; ``classes``
    are those of all splits, sorted, and ``labels`` indices into them.
    """

    data_set: str
    folder: Path
    split: str | None
    classes: list[str]
    paths: list[Path]
    labels: list[int]
    owners: list[Owner]

    @property
    def patients(self) -> list[str] | None:
        """Patient of each image; an unknown one is one of his own, None where all are unknown."""
        if not any(owner.patient for owner in self.owners):
            return None
        pairs = zip(self.owners, self.names, strict=True)
        return [owner.patient or f"image {name}" for owner, name in pairs]

    @property
    def names(self) -> list[str]:
        """Path of each image from its class on."""
        return [path.relative_to(self.folder).as_posix() for path in self.paths]

    def sha256(self) -> str:
        """Hash the images and their classes."""
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(file_sha256, self.paths)
            digests = list(track(found, "hashing images", len(self.paths)))
        lines = zip(self.names, digests, strict=True)
        return hashlib.sha256("\n".join(f"{n}\0{d}" for n, d in lines).encode()).hexdigest()


def read_image_folder(folder: Path, split: str | None) -> ImageFolder:
    """List the labelled images of a folder, by default of ``test`` where there are splits.

    Raises:
        InputError: If the folder, the split or a second class is missing, or there is no image.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", expected="labelled images by class")
    present = [name for name in SPLITS if (folder / name).is_dir()]
    if split is not None and not present:
        raise InputError("--split has no effect on a folder without splits", got=f"--split {split}")
    if present:
        split = split or "test"
        if split not in present:
            raise InputError(
                f"{folder} has no split {split}", got=", ".join(present), expected="one of these"
            )
    roots = [folder / name for name in present] or [folder]
    folders = (path for root in roots for path in root.iterdir() if path.is_dir())
    classes = sorted({path.name for path in folders if not path.name.startswith(".")})
    if len(classes) < 2:
        raise InputError(
            f"{folder} does not have two classes",
            got=shorten(classes) or "no folder",
            expected="a folder for each class, below train, val and test where there are splits",
        )
    base = folder / split if split is not None else folder
    by_class = [list_image_files(base / name) for name in classes]
    paths = [path for images in by_class for path in images]
    if not paths:
        raise InputError(f"there is no image in {base}", expected=f"{', '.join(READERS)} files")
    labels = [label for label, images in enumerate(by_class) for _ in images]
    table = read_split_table(folder) if split is not None else {}
    owners = [
        owner_of(path, folder, table) if split is not None else owner_in_name(path.stem)
        for path in paths
    ]
    check_images(paths, folder, table)
    owners, _ = same_people(owners)
    return ImageFolder(folder.resolve().name, base, split, classes, paths, labels, owners)
