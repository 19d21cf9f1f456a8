"""Leaks: what a model was trained on, or its probe learned from, must not be what it is tested on.

Found by content, wherever a file lies and whatever it is called: by the hash of its bytes, by a
perceptual hash that survives another encoding, and by patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pandas as pd

from linprobe.datasets import DataSet, read_bscan
from linprobe.store import FeatureStore, images_key
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.common.patient_names import patient_key
from retfiner.common.placeholders import is_placeholder
from retfiner.common.progress import track
from retfiner.vision.images import ImageAddress, count_images, is_image_file, iter_images
from retfiner.vision.images.perceptual import Bits, perceptual_hash, same_images


def hash_images(
    paths: Sequence[Path],
    digests: Sequence[str],
    store: FeatureStore,
    title: str,
    counts: Sequence[int] | None = None,
) -> Bits:
    """Hash images as :func:`perceptual_hash` does, or take the hashes from the store.

    ``digests`` are the SHA-256 of the files; ``counts`` says how many images each holds, where they
    may be volumes: (N, 256), N the images in all.

    Raises:
        InputError: If an image cannot be read.
    """
    key = images_key("perceptual hash", digests)
    kept = store.read(key, len(paths) if counts is None else sum(counts))
    if kept is not None:
        return kept > 0

    def look(path: Path) -> list[Bits]:
        images = [read_bscan(path)] if counts is None else iter_images(path)
        return [perceptual_hash(image) for image in images]

    with ThreadPoolExecutor(4) as pool:
        hashes = pool.map(look, paths)
        shown = track(hashes, title, len(paths), "file")
        found = np.stack(list(chain.from_iterable(shown)))
    store.write(key, found.astype(np.float16))
    return found


def check_splits(data: DataSet, store: FeatureStore) -> list[str]:
    """Say which images are in two splits of a data set: a sentence on each two splits."""
    hashes = {
        name: hash_images(split.paths, split.digests, store, f"{data.name}: comparing {name}")
        for name, split in data.splits.items()
    }
    found = []
    for one, other in combinations(data.splits, 2):
        pairs = same_images(hashes[one], hashes[other])
        ours, theirs = data.splits[one].names, data.splits[other].names
        if pairs:
            names = [f"{ours[i]} = {theirs[k]}" for i, k in pairs]
            found.append(
                f"{len(pairs)} images of {other} are in {one} too, as they look: "
                f"{shorten(names, 5)}."
            )
    return found


def refuse(data: DataSet, leaks: Sequence[str], allow: bool) -> list[str]:
    """Raise leaks as an error, or give them back as notes for the results.

    Raises:
        InputError: If there are any that concern the test images and none are allowed.
    """
    grave = [leak for leak in leaks if " test " in f" {leak} "]
    if grave and not allow:
        raise InputError(
            f"{data.name} is tested on images that were trained on:\n  " + "\n  ".join(grave),
            remedy="remove them from one of the two; --allow_leaks probes all the same, and "
            "says so in the report",
        )
    return list(leaks)


class TrainingPairs:
    """The image-report pairs that a model was refined on, to be compared with test images.

    ``table`` is a CSV with ``image`` (paths from its own folder) and maybe ``patient_id``; of a
    volume, all B-scans are compared.

    Raises:
        InputError: If the table or an image cannot be read.
    """

    def __init__(self, table: Path, store: FeatureStore) -> None:
        try:
            rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{table} cannot be read as a CSV", got=error) from error
        if "image" not in rows or rows.empty:
            raise InputError(
                f"{table} has no column image, or no row",
                got=f"{', '.join(rows.columns)} of {len(rows)} rows",
                expected="image among the columns",
            )
        addresses = (ImageAddress.parse(table.parent / name) for name in rows["image"])
        paths = list(dict.fromkeys(address.path for address in addresses))
        absent = [str(path) for path in paths if not is_image_file(path)]
        if absent:
            raise InputError(
                f"{len(absent)} images of {table} are not there",
                got=shorten(absent, 3),
                expected="paths of images from the table's own folder",
            )
        counts = [count_images(path) for path in paths]
        self.names = [
            path.name if count == 1 else f"{path.name}#{k}"
            for path, count in zip(paths, counts, strict=True)
            for k in range(count)
        ]
        named = set(rows["patient_id"]) if "patient_id" in rows else set()
        self.patients = {name for name in named if not is_placeholder(name)}
        read = track(paths, "reading the training pairs", len(paths), "file")
        digests = [file_sha256(path) for path in read]
        self.hashes = hash_images(paths, digests, store, "hashing the training pairs", counts)
        self.table = table

    def leaks(self, data: DataSet, store: FeatureStore) -> list[str]:
        """Say which test images and patients of a data set are among the pairs."""
        split = data.splits["test"]
        hashes = hash_images(split.paths, split.digests, store, f"{data.name}: comparing test")
        pairs = same_images(self.hashes, hashes)
        names = [f"{self.names[i]} = {split.names[k]}" for i, k in pairs]
        trained = {patient_key(name) for name in self.patients}
        tested = {owner.patient for owner in split.owners} - {""}
        patients = sorted(name for name in tested if patient_key(name) in trained)
        among = f"are among the training pairs of {self.table.name}, "
        shared = (("images", "as they look", names), ("patients", "by their names", patients))
        return [
            f"{len(found)} test {what} {among}{how}: {shorten(found, 5)}."
            for what, how, found in shared
            if found
        ]
