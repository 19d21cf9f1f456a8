"""Somebody's split, repeated exactly from their ``split.csv``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from linprobe.prepare.spec import BScan
from linprobe.prepare.table import Row, read_table
from retfiner.common.errors import InputError, shorten


@dataclass(frozen=True)
class Repeated:
    """A split as a table says it.

    Attributes:
        bscans: Those that the table names, with its patients where the download tells none.
        rows: What the table says of each.
        notes: What a user must know.
    """

    bscans: list[BScan]
    rows: list[Row]
    notes: list[str]


def repeat_split(bscans: Sequence[BScan], path: Path) -> Repeated:
    """Find the B-scans that a table names.

    They are found by the name of the file without folder and suffix, else by ``source``.

    Raises:
        InputError: If the table cannot be used, an image is not found or named twice, or its class
            or patient is another one in the download.
    """
    rows = read_table(path)
    by_name = {bscan.name: bscan for bscan in bscans}
    by_source = {bscan.source: bscan for bscan in bscans}
    found: list[BScan] = []
    for row in rows:
        match = by_name.get(PurePosixPath(row.image).stem) or by_source.get(row.source)
        if match is not None:
            found.append(match)
    if len(found) < len(rows):
        missing = [
            row.image
            for row in rows
            if PurePosixPath(row.image).stem not in by_name and row.source not in by_source
        ]
        raise InputError(
            f"{len(missing)} of {len(rows)} images of {path} are not in the download",
            got=f"no {shorten(missing, 4)}",
            expected=f"names such as {shorten(sorted(by_name), 3)}",
            remedy="give the same download and the same --bscan, --label as were used for it",
        )
    names = [bscan.name for bscan in found]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"{path} names an image twice", got=shorten(twice))
    kept = [_agree(bscan, row, path) for bscan, row in zip(found, rows, strict=True)]
    left = len(bscans) - len(kept)
    note = f"{left} images of the download are not in {path.name} and were left out."
    return Repeated(kept, rows, [note] * bool(left))


def _agree(bscan: BScan, row: Row, path: Path) -> BScan:
    """Check what a table says of a B-scan, and take its patient where nobody else knows."""
    for what, theirs, ours in (
        ("class", row.label, bscan.label),
        ("patient", row.patient, bscan.patient),
    ):
        if theirs and ours is not None and theirs != ours:
            raise InputError(
                f"{path} and the download do not agree on the {what} of {row.image}",
                got=f"{theirs} in the table, {ours} in the download",
            )
    patient = bscan.patient if bscan.patient is not None else row.patient or None
    return dataclasses.replace(bscan, patient=patient, split=row.split)


def check_content(expected: Sequence[Row], written: Sequence[Row], path: Path) -> None:
    """Check that the images that were written are those of the table, as far as it has hashes.

    Where it has the hash of the pixels, that one counts: the hash of a PNG depends on the version
    of its compressor as well.

    Raises:
        InputError: If an image differs.
    """
    other = [
        theirs.image
        for theirs, ours in zip(expected, written, strict=True)
        if (theirs.pixels_sha256 and theirs.pixels_sha256 != ours.pixels_sha256)
        or (not theirs.pixels_sha256 and theirs.sha256 and theirs.sha256 != ours.sha256)
    ]
    if other:
        raise InputError(
            f"{len(other)} of {len(expected)} images are not those of {path}",
            got=f"another sha256 for {shorten(other, 4)}",
            expected="the same images, byte for byte",
            remedy="use the same download and flags; the sha256 of a PNG also differs between "
            "versions of Pillow: without the column sha256, it is not compared",
        )
