"""What a run was trained on, in one number that a changed table or image changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from retfiner.common.files import file_sha256
from retfiner.data.datamodule import Pairs
from retfiner.data.manifest import Manifest
from retfiner.vision.images.remote import size_of


def describe_data(pairs: Pairs, dataset: str | None = None) -> dict[str, Any]:
    """Describe the pairs of a run: how many, and a SHA-256 of them in their order.

    Images count by path and size. They are not read, which would take longer than many an epoch; a
    file that changes its size is found. Paths count from the table's folder or, where images lie
    elsewhere, from the folder they have in common, so that a copy elsewhere is the same data. Of a
    user's class, its file and the numbers of its pairs are all that is known.
    """
    digest = hashlib.sha256()
    sizes = pairs.train_size, pairs.validation_size
    for size in sizes:
        digest.update(f"{size} pairs\n".encode())
    if pairs.manifests is not None:
        for manifest in pairs.manifests:
            _add(digest, manifest)
    elif dataset is not None:
        digest.update(file_sha256(Path(dataset.rpartition(":")[0])).encode())
    return {
        "train_pairs": sizes[0],
        "validation_pairs": sizes[1],
        "data_sha256": digest.hexdigest(),
    }


def _add(digest: hashlib._Hash, manifest: Manifest) -> None:
    sizes: dict[Path, int] = {}
    root = manifest.source.absolute().parent
    folders = {image.path.absolute().parent for image in manifest.images}
    if not all(folder.is_relative_to(root) for folder in folders):
        root = Path(os.path.commonpath(folders))
    for exam in manifest.exams or []:
        for part in exam.parts:
            image, count = part.content
            place = os.path.relpath(image.path.absolute(), root)
            about = (place, image.index, image.member, count, size_of(image.path))
            digest.update(repr(about).encode())
    patients = manifest.patients or [""] * len(manifest)
    for image, report, patient in zip(manifest.images, manifest.reports, patients, strict=True):
        if image.path not in sizes:  # a volume holds many
            sizes[image.path] = size_of(image.path)
        place = os.path.relpath(image.path.absolute(), root)
        parts = (place, image.index, image.member, sizes[image.path], report, patient)
        digest.update(repr(parts).encode())
