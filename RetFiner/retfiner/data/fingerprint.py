"""What a run was trained on, in one number that a changed table or image changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from retfiner.common.files import file_sha256
from retfiner.data.datamodule import Pairs
from retfiner.data.manifest import Manifest


def describe_data(pairs: Pairs, dataset: str | None = None) -> dict[str, Any]:
    """Say in plain data what a run is trained on.

    Args:
        pairs: The two parts of the data.
        dataset: The user's class, where the pairs come from one.
    """
    return {
        "train_pairs": pairs.train_size,
        "validation_pairs": pairs.validation_size,
        "data_sha256": fingerprint(pairs, dataset),
    }


def fingerprint(pairs: Pairs, dataset: str | None = None) -> str:
    """Hash the pairs of a run, in their order: images by path and size, reports, patients.

    Images are not read, which would take longer than many an epoch; a file that changes its size
    is found. Paths count from the table's folder, so that a copy elsewhere is the same data.

    Args:
        pairs: The two parts of the data.
        dataset: The user's class, where the pairs come from one: its file and the numbers of its
            pairs are all that is known.

    Returns:
        A SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for size in (pairs.train_size, pairs.validation_size):
        digest.update(f"{size} pairs\n".encode())
    if pairs.manifests is not None:
        for manifest in pairs.manifests:
            _add(digest, manifest)
    elif dataset is not None:
        digest.update(file_sha256(Path(dataset.rpartition(":")[0])).encode())
    return digest.hexdigest()


def _add(digest: hashlib._Hash, manifest: Manifest) -> None:
    sizes: dict[Path, int] = {}
    root = manifest.source.absolute().parent
    patients = manifest.patients or [""] * len(manifest)
    for image, report, patient in zip(manifest.images, manifest.reports, patients, strict=True):
        if image.path not in sizes:  # a volume holds many
            sizes[image.path] = image.path.stat().st_size
        place = os.path.relpath(image.path.absolute(), root)
        parts = (place, image.index, image.member, sizes[image.path], report, patient)
        digest.update(repr(parts).encode())
