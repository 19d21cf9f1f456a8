"""Kinds of image that no column names, seen from the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retfiner.data.file_looks import look_at_each
from retfiner.data.pair_table import MODALITY, PairRow, as_kind
from retfiner.vision.images import ImageAddress
from retfiner.vision.images.kinds import seen_kind
from retfiner.vision.images.read_as import OCT

FIRST_LOOKS = 1_000
"""Files of many that are looked at before all of them are."""


def see_kinds(images: Iterable[ImageAddress], first: int | None = FIRST_LOOKS) -> dict[Path, str]:
    """Say of each file which kind of image it holds, as far as it says so itself.

    Of more files than ``first``, so many are looked at, spread over all, and the others only where
    one of them is no OCT: a million B-scans need not be opened to learn that they are.
    """
    files = list(dict.fromkeys(ImageAddress(image.path, member=image.member) for image in images))
    title = "looking for kinds of image"
    looks: dict[ImageAddress, str] = {}
    if first is not None and len(files) > first:
        looks = look_at_each(files[:: -(-len(files) // first)], seen_kind, title)
    if not looks or set(looks.values()) - {OCT, ""}:
        looks |= look_at_each([file for file in files if file not in looks], seen_kind, title)
    return {file.path: kind for file, kind in looks.items() if kind}


def is_unnamed(row: PairRow) -> bool:
    """Say whether neither the column nor the address of a row names its kind of image."""
    return not row.modality and row.image.read_as.modality is None


def with_kinds(rows: Sequence[PairRow], kinds: Mapping[Path, str]) -> list[PairRow]:
    """Give rows that name no kind of image the one that their file was seen to hold."""
    return [
        replace(row, image=as_kind(row.image, kind), kept={**row.kept, MODALITY: kind})
        if is_unnamed(row) and (kind := kinds.get(row.image.path))
        else row
        for row in rows
    ]


def describe_kinds(kinds: Mapping[Path, str]) -> list[str]:
    """Say in a line what files were taken for, if any was taken for another kind than OCT."""
    counts = Counter(kinds.values())
    if not set(counts) - {OCT}:
        return []
    told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return [f"kinds of image, as the files show them: {told} (a column {MODALITY} overrides it)"]
