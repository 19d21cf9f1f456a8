"""Pictures of probing data sets, which must not be trained on: by how they look, and by patient.

A model that saw what it is tested on makes the probing table worthless. Pictures are compared by
:mod:`retfiner.vision.images.perceptual`, whatever the files are called and however they are
written; patients by their names, and by sharing a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retfiner.common.errors import InputError, shorten
from retfiner.common.patient_names import patient_key
from retfiner.common.patients import owner_of, read_split_table
from retfiner.common.progress import track
from retfiner.data.manifest import Manifest
from retfiner.vision.images import ImageAddress, iter_images, list_image_files, read_image
from retfiner.vision.images.perceptual import Bits, perceptual_hash, same_images

SPLITS = ("train", "val", "test")
HELD_OUT = ("val", "test")
DESCRIPTION = "dataset.json"
"""Beside the splits of a data set that ``prepare_dataset.py`` wrote."""
THREADS = 4


class ProbingPictures(NamedTuple):
    """Pictures of probing data sets: (N, 256) hashes, N names, and the patients' names."""

    hashes: Bits
    names: list[str]
    patients: frozenset[str]

    @classmethod
    def read(cls, root: Path) -> ProbingPictures:
        """Read all pictures of the data sets ``<root>/<name>/{train,val,test}/<Class>/``.

        Raises:
            InputError: If there are none, or one cannot be read.
        """
        folders = [root / split for split in SPLITS if (root / split).is_dir()]  # of one data set
        folders += sorted(path for split in SPLITS for path in root.glob(f"*/{split}"))
        files = [p for folder in folders for p in list_image_files(folder)]
        if not files:
            raise InputError(
                f"{root} holds no probing data set",
                got=shorten(sorted(p.name for p in root.iterdir())) if root.is_dir() else "nothing",
                expected="<data set>/{train,val,test}/<Class>/<image>",
                remedy="give --not_in what probe.py is given as --data_root",
            )
        tables = {f.parent: read_split_table(f.parent) for f in folders}
        sets = {p: f.parent for f in folders for p in files if p.is_relative_to(f)}
        owners = [owner_of(p, sets[p], tables[sets[p]]).patient for p in files]
        hashes = look_at_all([ImageAddress(p) for p in files], f"reading {root.name}", all_of=True)
        counts = [len(of_file) for of_file in hashes]
        names = np.repeat([str(p.relative_to(root)) for p in files], counts).tolist()
        patients = frozenset(patient_key(owner) for owner in owners if owner)
        return cls(np.concatenate(hashes), names, patients)

    def shared(self, hashes: Bits, patients: Sequence[str | None]) -> dict[int, tuple[str, str]]:
        """Say of each pair that must not be trained on why, and which picture or patient it shares.

        A patient one of whose pictures is among the probing pictures is shared as a whole.
        """
        alike = {theirs: self.names[ours] for ours, theirs in same_images(self.hashes, hashes)}
        found = {i: ("picture of a probing set", name) for i, name in alike.items()}
        persons = {patients[i] for i in alike} - {None}
        for i, patient in enumerate(patients):
            if i in found or patient is None:
                continue
            if patient in persons:
                found[i] = ("patient of a probing set, who shares a picture with it", "")
            elif patient_key(patient) in self.patients:
                found[i] = ("patient named as one of a probing set", "")
        return found


def look_at_all(addresses: Sequence[ImageAddress], title: str, all_of: bool = False) -> list[Bits]:
    """Hash images, or ``all_of`` each file's, as :func:`perceptual_hash` does: (n, 256) each.

    Raises:
        InputError: If one cannot be read.
    """

    def look(address: ImageAddress) -> Bits:
        images: Iterable[np.ndarray] = iter_images(address) if all_of else [read_image(address)]
        return np.stack([perceptual_hash(image) for image in images])

    with ThreadPoolExecutor(THREADS) as pool:
        return list(track(pool.map(look, addresses), title, len(addresses), "image"))


def require_not_probed(tables: Sequence[Manifest], root: Path | None) -> None:
    """Refuse tables that hold what is probed on.

    Pictures that lie in the validation or test part of a prepared data set are refused by their
    place; with a ``root`` of probing data, all others that look like one of it, and its patients.
    An exam is refused for any of its images.

    Raises:
        InputError: If there are any; rows are named, patients are not.
    """
    for table in tables:
        inside = [row for row, images in zip(table.rows, table.images_of_pairs, strict=True)
                  if any(_is_held_out(image.path) for image in images)]  # fmt: skip
        _refuse(table, inside, f"in the val or test folder of a data set with {DESCRIPTION}",
                "leave these rows out: probe.py tests on these pictures")  # fmt: skip
    if root is None:
        return
    probing = ProbingPictures.read(root)
    for table in tables:
        shown = [(pair, image) for pair, images in enumerate(table.images_of_pairs)
                 for image in images]  # fmt: skip
        distinct = list(dict.fromkeys(image for _, image in shown))
        looks = dict(zip(distinct, look_at_all(distinct, "comparing images"), strict=True))
        hashes = np.concatenate([looks[image] for _, image in shown])
        owners = [None if table.patients is None else table.patients[pair] for pair, _ in shown]
        found = probing.shared(hashes, owners)
        kinds = shorten(sorted({kind for kind, _ in found.values()}))
        _refuse(table, [table.rows[pair] for pair in sorted({shown[i][0] for i in found})], kinds,
                f"prepare_pairs.py --csv TABLE --not_in {root} leaves them out")  # fmt: skip


def _refuse(table: Manifest, rows: Sequence[int], why: str, remedy: str) -> None:
    if rows:
        raise InputError(
            f"{len(rows)} of {len(table)} pairs of {table.source} are of a probing data set",
            got=f"{why}: rows {shorten([str(row) for row in rows])}",
            expected="pairs that no probe is tested on: its results would say nothing",
            remedy=remedy,
        )


def _is_held_out(path: Path) -> bool:
    return any(
        parent.name in HELD_OUT and (parent.parent / DESCRIPTION).is_file()
        for parent in path.parents[1:]
    )
