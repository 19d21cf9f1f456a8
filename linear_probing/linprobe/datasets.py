"""A probing data set: ``<name>/{train,val,test}/<Class>/<image>``, images at any depth.

The order of the classes comes from the union of the splits, so that a class missing from one of
them shifts no label.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.common.patients import (
    Owner,
    check_images,
    in_several_classes,
    owner_of,
    read_split_table,
    same_people,
)
from retfiner.common.progress import track
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
FilesByClass = dict[str, list[Path]]
_RENAME = "rename its folder; quotation marks show blanks at its end"
_REMEDY = "prepare_dataset.py brings published data sets into this layout"


@dataclass(frozen=True)
class Split:
    """The images of one split, sorted by class and name.

    Attributes:
        paths: Where they lie.
        labels: (N,) index of each one's class, or value; (N, L) of 0 and 1 for several labels.
        owners: Whose they are, as far as that is known.
        digests: SHA-256 of each file's bytes.
        names: Path of each below the split, ``<Class>/<file>``.
    """

    paths: list[Path]
    labels: NDArray[Any]
    owners: list[Owner]
    digests: list[str]
    names: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def units(self) -> list[str]:
        """What belongs together: a patient's images, and each image of an unknown one."""
        from linprobe.units import unit_names  # by pandas, which a wrong path does not wait for

        return unit_names("patient", self.names, self.owners)

    def subset(self, rows: NDArray[np.int64]) -> Split:
        """Take some of the images, in the order given."""
        return Split(
            [self.paths[k] for k in rows],
            self.labels[rows],
            [self.owners[k] for k in rows],
            [self.digests[k] for k in rows],
            [self.names[k] for k in rows],
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
        train_set: Name of the data set that is trained on, if that is another one.
        task: What is predicted, a key of :data:`retfiner.common.metrics.MAIN_METRIC`.
    """

    name: str
    classes: list[str]
    splits: dict[str, Split]
    notes: list[str]
    sha256: str
    train_set: str = ""
    task: str = "classes"

    @property
    def is_of_classes(self) -> bool:
        """Whether an image has just one of some classes, or grades."""
        return self.task in ("classes", "ordinal")


def list_data_sets(
    data_root: Path, names: list[str], but: Sequence[str] = (), having: str = "train"
) -> list[Path]:
    """Find the folders of data sets; with no name given, all ``having`` a folder but some.

    Raises:
        InputError: If the folder or a data set does not exist, or there is none.
    """
    if not data_root.is_dir():
        raise InputError(
            f"There is no folder {data_root}",
            expected=f"a folder with {_LAYOUT}",
            remedy=f"give it with --data_root; {_REMEDY}",
        )
    every = sorted(path.name for path in data_root.iterdir() if (path / having).is_dir())
    present = [name for name in every if name not in but]
    missing = [name for name in names if not (data_root / name).is_dir()]
    if missing or not present:
        raise InputError(
            f"No data set {'of this name ' if missing else ''}in {data_root}",
            got=shorten(missing) or shorten(sorted(path.name for path in data_root.iterdir())),
            expected=f"one of {', '.join(present)}" if present else _LAYOUT,
            remedy=f"correct --data_set or --data_root; {_REMEDY}",
        )
    return [data_root / name for name in names or present]


def read_data_set(folder: Path, wanted: Sequence[str] = SPLITS, least: int = 2) -> DataSet:
    """List the data set in a folder, or some of its splits, and hash its images.

    Raises:
        InputError: If the layout is not there, a split is empty, there are fewer than ``least``
            classes, or a class is spelled in two ways, or a file cannot be read.
    """
    _check_layout(folder, wanted)
    table = read_split_table(folder)
    files = {
        split: {
            place.name: _files_below(place)
            for place in sorted((folder / split).iterdir())
            if place.is_dir() and not place.name.startswith(".")
        }
        for split in wanted
    }
    found = {
        split: {name: list(filter(is_image_file, paths)) for name, paths in by_class.items()}
        for split, by_class in files.items()
    }
    classes = sorted({name for by_class in found.values() for name in by_class})
    check_spelling(folder.name, found, _RENAME)
    bare = [name for name in classes if not any(by.get(name) for by in found.values())]
    classes = [name for name in classes if name not in bare]
    empty = [split for split, by_class in found.items() if not any(by_class.values())]
    if empty:
        raise InputError(
            f"{folder} has no image in {' and '.join(empty)}",
            expected=f"{_LAYOUT} with {', '.join(READERS)} files",
            remedy=_REMEDY,
        )
    if len(classes) < least:
        raise InputError(
            f"{folder} has only one class",
            got=shorten(classes) or shorten(bare),
            expected="at least two: a folder for each below train, val and test",
        )
    paths_of = {
        split: [path for name in classes for path in by_class.get(name, [])]
        for split, by_class in found.items()
    }
    owners_of, told = _owners(folder, paths_of, table)
    splits = {}
    for split, by_class in found.items():
        paths = paths_of[split]
        labels = np.repeat(np.arange(len(classes)), [len(by_class.get(n, [])) for n in classes])
        digests = hash_files(paths, f"{folder.name}: reading {split}")
        names = [path.relative_to(folder / split).as_posix() for path in paths]
        splits[split] = Split(paths, labels, owners_of[split], digests, names)
    every = [path for by_class in files.values() for paths in by_class.values() for path in paths]
    images = [path for split in splits.values() for path in split.paths]
    return DataSet(
        folder.name,
        classes,
        splits,
        [*_notes(classes, splits, by_name=not table), *told, *_left_out(every, images, bare)],
        fingerprint_of(classes, splits),
    )


def _owners(
    folder: Path, paths: dict[str, list[Path]], table: dict[str, Owner]
) -> tuple[dict[str, list[Owner]], list[str]]:
    """Say whose the images of each split are, a person by one name in all of them; and notes."""
    every = [path for part in paths.values() for path in part]
    unused = check_images(every, folder, table)
    owners, notes = same_people([owner_of(path, folder, table) for path in every])
    places = iter(owners)
    of_split = {split: [next(places) for _ in part] for split, part in paths.items()}
    return of_split, [*notes, *(unused if set(paths) == set(SPLITS) else [])]


def _check_layout(folder: Path, wanted: Sequence[str]) -> None:
    absent = [split for split in wanted if not (folder / split).is_dir()]
    if not absent:
        return
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise InputError(
        f"{folder} does not have the layout of a probing data set: no {', '.join(absent)}",
        got=shorten(there) or "an empty folder" if folder.is_dir() else "no folder",
        expected=_LAYOUT,
        remedy=_REMEDY,
    )


def _files_below(folder: Path) -> list[Path]:
    """List the files of a class, at any depth as ImageFolder does, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def check_spelling(name: str, found: Mapping[str, Iterable[str]], remedy: str) -> None:
    """Refuse classes, by split, that are one by all that a reader sees.

    They differ in case, blanks or signs nobody sees; or in punctuation, and no split has both.

    Raises:
        InputError: If there are such.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for split, classes in found.items():
        for label in classes:
            places[label].append(split)
    for one, other in combinations(sorted(places), 2):
        plain = [unicodedata.normalize("NFKC", label).casefold() for label in (one, other)]
        seen = ["".join(filter(str.isprintable, "".join(label.split()))) for label in plain]
        words = ["".join(filter(str.isalnum, label)) for label in plain]
        apart = not set(places[one]) & set(places[other])
        if seen[0] == seen[1] or (apart and words[0] == words[1] != ""):
            told = (f"{label!r} in {' and '.join(places[label])}" for label in (one, other))
            raise InputError(
                f"{name}: a class is spelled in two ways",
                got=", ".join(told),
                expected="the same name in each split",
                remedy=remedy,
            )


def read_bscan(path: Path) -> np.ndarray:
    """Read an image of a data set: (H, W) float32 in [0, 1].

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


def hash_files(paths: list[Path], title: str) -> list[str]:
    """Give the SHA-256 of each file's bytes.

    Raises:
        InputError: If one cannot be read.
    """
    with ThreadPoolExecutor(8) as pool:  # reading and hashing both release the interpreter
        found = pool.map(_hash, paths)
        return list(track(found, title, len(paths)))


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"The image {path} cannot be read", got=error) from error


def fingerprint_of(classes: list[str], splits: dict[str, Split]) -> str:
    """Hash what a data set consists of: images, their places, labels and patients."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for name, split in splits.items():
        rows = zip(split.paths, split.digests, split.labels.tolist(), split.owners, strict=True)
        for path, image, label, owner in rows:
            digest.update(f"\0{name}\0{label}\0{path.name}\0{image}\0{owner.patient}".encode())
    return digest.hexdigest()


def notes_on_absent(classes: list[str], splits: dict[str, Split]) -> list[str]:
    """Say which classes, or labels, no image of a split has."""
    notes = []
    for name, split in splits.items():
        several = split.labels.ndim == 2
        there = np.flatnonzero(split.labels.any(axis=0)) if several else split.labels
        absent = [label for k, label in enumerate(classes) if k not in there]
        notes += [f"No image of {shorten(absent)} in {name}."] * bool(absent)
    return notes


def notes_on_patients(splits: dict[str, Split]) -> tuple[list[str], bool]:
    """Say how many images' patients are not known, and who is in two splits; and if any is."""
    every = {name: [owner.patient for owner in split.owners] for name, split in splits.items()}
    patients = {name: set(found) - {""} for name, found in every.items()}
    total, unknown = sum(map(len, every.values())), sum(p.count("") for p in every.values())
    if unknown == total:
        return ["Patients are not known: intervals and fractions go by image."], False
    alone = f"The patient of {unknown} of {total} images is not known: each is its own."
    notes = [alone] * bool(unknown)
    for first, second in combinations(splits, 2):
        shared = patients[first] & patients[second]
        notes += [f"{len(shared)} patients are in both {first} and {second}."] * bool(shared)
    return notes, True


def _notes(classes: list[str], splits: dict[str, Split], *, by_name: bool) -> list[str]:
    """Say what is odd about a data set: absent classes, unknown or shared patients."""
    on_patients, is_any_known = notes_on_patients(splits)
    notes = [*notes_on_absent(classes, splits), *on_patients]
    if not is_any_known:
        return notes
    pairs = ((owner.patient, int(label)) for split in splits.values()
             for owner, label in zip(split.owners, split.labels, strict=True))  # fmt: skip
    several = in_several_classes(pairs) if by_name else []
    if several:
        notes.append(
            f"{len(several)} patients, known by file names alone, are in several classes "
            f"({shorten(several, 3)}): where numbers restart in each class, these are different "
            "people, and a split.csv should say so."
        )
    return notes


def _left_out(every: list[Path], images: list[Path], bare: list[str]) -> list[str]:
    """Say which files below the classes are no images, and which folders have none."""
    notes = [f"No class, as they hold no image: {shorten(bare)}."] * bool(bare)
    kinds = Counter(path.suffix.lower() or "no suffix" for path in set(every) - set(images))
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return notes + [f"Left out, as no images of a known kind: {told}."] * bool(kinds)
