"""From a name such as ``RETFound`` to the file that was downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retfiner.common.commands import REPOSITORY, command, shorter
from retfiner.common.errors import InputError
from retfiner.vision.published.registry import WEIGHTS, PublishedWeights

DOWNLOADS = REPOSITORY / "pretrained_weights"
GET = "pretrained_weights/get.py"
"""The script that downloads."""


def entry_named(name: str) -> PublishedWeights:
    """Look a name up, whatever its case.

    Raises:
        InputError: If there is none of that name, or it is that of a backbone of several sizes.
    """
    for entry in WEIGHTS:
        if entry.name.lower() == name.lower():
            return entry
    sizes = [entry.name for entry in WEIGHTS if entry.backbone.lower() == name.lower()]
    raise InputError(
        f"{name} has several published sizes"
        if sizes
        else f"No published weights are called {name}",
        got=name,
        expected=f"one of {', '.join(sizes or [entry.name for entry in WEIGHTS])}",
        remedy=f"{command(GET)} lists them",
    )


def downloaded(entry: PublishedWeights, folders: Sequence[Path] = (DOWNLOADS,)) -> Path | None:
    """Find an entry's file in folders, under any of the names that it goes by."""
    places = (folder / name for name in entry.files for folder in folders)
    return next((path for path in places if path.is_file()), None)


def weights_at(path: Path, folders: Sequence[Path] = (DOWNLOADS,)) -> Path:
    """Return a path as it is, or the downloaded file if it is the name of published weights.

    A file or folder of that name wins; what is neither is left to whoever reads it.

    Raises:
        InputError: If published weights of that name are not downloaded yet.
    """
    known = {name.lower() for entry in WEIGHTS for name in (entry.name, entry.backbone)}
    if path.exists() or str(path).lower() not in known:
        return path
    entry = entry_named(str(path))
    found = downloaded(entry, folders)
    if found is None:
        raise InputError(
            f"{entry.name} is not downloaded yet",
            got=f"no {' and no '.join(entry.files)} in {' or '.join(map(shorter, folders))}",
            remedy=command(GET, entry.name),
        )
    return found
