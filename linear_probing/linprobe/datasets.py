"""A probing data set: ``<name>/{train,val,test}/<Class>/<image>``.

The order of the classes comes from the union of the splits, so that a class missing from one of
them shifts no label.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.common.patients import patient_of, read_split_table
from retfiner.vision.images import (
    READERS,
    ImageAddress,
    VolumeError,
    count_images,
    is_image_file,
    read_image,
)

SPLITS = ("train", "val", "test")
_LAYOUT = "<data set>/{train,val,test}/<Class>/<image>"
_REMEDY = "prepare_dataset.py brings published data sets into this layout"


@dataclass(frozen=True)
class Split:
    """The images of one split, sorted by class and name.

    Attributes:
        paths: Where they lie.
        labels: (N,) index of each one's class.
        patients: Whose they are, or None where that is not known of all.
        digests: SHA-256 of each file's bytes.
    """

    paths: list[Path]
    labels: NDArray[np.int64]
    patients: list[str] | None
    digests: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, rows: NDArray[np.int64]) -> Split:
        """Take some of the images, in the order given."""
        return Split(
            [self.paths[k] for k in rows],
            self.labels[rows],
            None if self.patients is None else [self.patients[k] for k in rows],
            [self.digests[k] for k in rows],
        )


@dataclass(frozen=True)
class DataSet:
    """A data set with its three splits.

    Attributes:
        name: Its folder's name.
        classes: Names of the classes, sorted.
        splits: By ``train``, ``val`` and ``test``.
        notes: What a reader of the results must know.
        sha256: Fingerprint of the content: images, their places, classes and patients.
    """

    name: str
    classes: list[str]
    splits: dict[str, Split]
    notes: list[str]
    sha256: str


def list_data_sets(data_root: Path, names: list[str]) -> list[Path]:
    """Find the folders of data sets; with no name given, all that have a ``train`` folder.

    Args:
        data_root: Folder of the data sets.
        names: Their names.

    Raises:
        InputError: If the folder or a data set does not exist, or there is none.
    """
    if not data_root.is_dir():
        raise InputError(
            f"There is no folder {data_root}",
            expected=f"a folder with {_LAYOUT}",
            remedy=f"give it with --data_root; {_REMEDY}",
        )
    present = sorted(path.parent.name for path in data_root.glob("*/train") if path.is_dir())
    missing = [name for name in names if not (data_root / name).is_dir()]
    if missing or not present:
        raise InputError(
            f"No data set of this name in {data_root}"
            if missing
            else f"No data set in {data_root}",
            got=shorten(missing) or shorten(sorted(path.name for path in data_root.iterdir())),
            expected=f"one of {', '.join(present)}" if present else _LAYOUT,
            remedy=f"correct --data_set or --data_root; {_REMEDY}",
        )
    return [data_root / name for name in names or present]


def read_data_set(folder: Path) -> DataSet:
    """List a data set and hash its images.

    Args:
        folder: Folder of the data set.

    Raises:
        InputError: If the layout is not there, a split is empty, there is only one class, or a
            file cannot be read.
    """
    _check_layout(folder)
    table = read_split_table(folder)
    found = {split: _images_by_class(folder / split) for split in SPLITS}
    classes = sorted({name for by_class in found.values() for name in by_class})
    empty = [split for split, by_class in found.items() if not any(by_class.values())]
    if empty:
        raise InputError(
            f"{folder} has no image in {' and '.join(empty)}",
            expected=f"{_LAYOUT} with {', '.join(READERS)} files",
            remedy=_REMEDY,
        )
    if len(classes) < 2:
        raise InputError(
            f"{folder} has only one class",
            got=classes[0],
            expected="at least two: a folder for each below train, val and test",
        )
    owners = {
        path: patient_of(path, folder, table)
        for by_class in found.values()
        for paths in by_class.values()
        for path in paths
    }
    known = all(owner is not None for owner in owners.values())
    splits = {}
    for split, by_class in found.items():
        paths = [path for name in classes for path in by_class.get(name, [])]
        counts = [len(by_class.get(name, [])) for name in classes]
        patients = [str(owners[path]) for path in paths] if known else None
        labels = np.repeat(np.arange(len(classes)), counts)
        splits[split] = Split(paths, labels, patients, _hashes(paths))
    return DataSet(
        folder.name,
        classes,
        splits,
        [*_notes(classes, splits, known), *_left_out(folder)],
        _fingerprint(classes, splits),
    )


def _check_layout(folder: Path) -> None:
    absent = [split for split in SPLITS if not (folder / split).is_dir()]
    if not absent:
        return
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise InputError(
        f"{folder} does not have the layout of a probing data set: no {', '.join(absent)}",
        got=shorten(there) or "an empty folder" if folder.is_dir() else "no folder",
        expected=_LAYOUT,
        remedy=_REMEDY,
    )


def _class_folders(split: Path) -> Iterator[Path]:
    yield from sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_by_class(split: Path) -> dict[str, list[Path]]:
    return {
        folder.name: sorted(p for p in folder.iterdir() if _is_image(p))
        for folder in _class_folders(split)
    }


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".") and is_image_file(path)


def read_bscan(path: Path) -> np.ndarray:
    """Read an image of a data set.

    Args:
        path: The file, which must hold a single image.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        InputError: If it cannot be read, or is a volume.
    """
    try:
        return read_image(ImageAddress(path))
    except VolumeError as error:
        raise InputError(
            f"{path} is a volume",
            got=f"{count_images(ImageAddress(path))} B-scans in one file",
            expected="one B-scan a file",
            remedy="prepare_dataset.py writes the B-scans of volumes into such folders",
        ) from error


def _hashes(paths: list[Path]) -> list[str]:
    with ThreadPoolExecutor(8) as pool:  # reading and hashing both release the interpreter
        return list(pool.map(_hash, paths))


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"The image {path} cannot be read", got=error) from error


def _fingerprint(classes: list[str], splits: dict[str, Split]) -> str:
    digest = hashlib.sha256("\0".join(classes).encode())
    for name, split in splits.items():
        patients = split.patients or [""] * len(split)
        for path, image, label, patient in zip(
            split.paths, split.digests, split.labels, patients, strict=True
        ):
            digest.update(f"\0{name}\0{label}\0{path.name}\0{image}\0{patient}".encode())
    return digest.hexdigest()


def _notes(classes: list[str], splits: dict[str, Split], known: bool) -> list[str]:
    """Say what is odd about a data set: absent classes, unknown or shared patients."""
    notes = []
    for name, split in splits.items():
        present = set(split.labels.tolist())
        absent = [label for k, label in enumerate(classes) if k not in present]
        if absent:
            notes.append(f"No image of {shorten(absent)} in {name}.")
    if not known:
        notes.append("Patients are not known: intervals and fractions go by image.")
        return notes
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = set(splits[first].patients or []) & set(splits[second].patients or [])
        if shared:
            notes.append(f"{len(shared)} patients are in both {first} and {second}.")
    return notes


def _left_out(folder: Path) -> list[str]:
    """Say which files below the classes are no images, so that none goes missing unseen."""
    kinds: Counter[str] = Counter()
    for split in SPLITS:
        for class_folder in _class_folders(folder / split):
            for path in class_folder.iterdir():
                if not path.name.startswith(".") and not _is_image(path):
                    kinds["folder" if path.is_dir() else path.suffix.lower() or "no suffix"] += 1
    if not kinds:
        return []
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return [f"Left out, as no images of a known kind: {told}."]
