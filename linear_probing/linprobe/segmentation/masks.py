"""Data sets for segmentation: ``<name>/<split>/bscan/<image>``, and its mask in ``semseg``.

The layout of MIRAGE's benchmark (Morano et al., 2025): gray PNG masks, and ``INFO.json``, which
says which gray value is which class. Without it, the values found are the classes, the lowest the
background.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linprobe.datasets import SPLITS, Split, hash_files, notes_on_patients
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import Owner, owner_in_name, read_split_table, same_people
from retfiner.common.progress import track
from retfiner.vision.images import is_image_file

Labels = NDArray[np.uint8]
IMAGES, MASKS, INFO = "bscan", "semseg", "INFO.json"
TO_TRAIN = f"train/{MASKS}"
_LAYOUT = f"<data set>/{{{','.join(SPLITS)}}}/{{{IMAGES},{MASKS}}}/<image>.png"


@dataclass(frozen=True)
class Masked:
    """The images of a split, and (H, W) numbers of each pixel's class, as large as the file is."""

    split: Split
    masks: list[Labels]


@dataclass(frozen=True)
class MaskedSet:
    """A data set with its three splits; the first of its classes is the background.

    ``notes`` are what a reader of the results must know.
    """

    name: str
    classes: list[str]
    splits: dict[str, Masked]
    notes: list[str]


def read_masked_set(folder: Path) -> MaskedSet:
    """Read a data set with its masks.

    Raises:
        InputError: If an image lacks its mask or a mask its image, a mask cannot be read, is of
            another size than its image, or has a value that stands for no class.
    """
    paths = {split: _paired(folder / split) for split in SPLITS}
    raw = {
        split: [_read_mask(mask, image) for image, mask in track(p, f"{folder.name}: {split}")]
        for split, p in paths.items()
    }
    values, classes = _classes(folder, [mask for masks in raw.values() for mask in masks])
    table = read_split_table(folder)
    images_of = {split: [image for image, _ in pairs] for split, pairs in paths.items()}
    owners, notes = same_people(
        [_owner(image, split, table) for split, images in images_of.items() for image in images]
    )
    places = iter(owners)
    splits = {}
    for split, images in images_of.items():
        known = list(zip(images, raw[split], strict=True))
        splits[split] = Masked(
            Split(
                images,
                np.zeros(len(images), np.int64),
                [next(places) for _ in images],
                hash_files(images, f"{folder.name}: reading {split}"),
                [image.name for image in images],
            ),
            [_numbered(mask, values, image, folder) for image, mask in known],
        )
    alone = {name: masked.split for name, masked in splits.items()}
    notes += [*notes_on_patients(alone)[0], *_in_two_splits(alone)]
    return MaskedSet(folder.name, classes, splits, notes)


def _in_two_splits(splits: dict[str, Split]) -> list[str]:
    """Say which images are in two splits, byte for byte."""
    notes = []
    for first, second in combinations(splits, 2):
        places = dict(zip(splits[first].digests, splits[first].names, strict=True))
        rows = zip(splits[second].digests, splits[second].names, strict=True)
        pairs = [f"{places[digest]} = {name}" for digest, name in rows if digest in places]
        told = f"{len(pairs)} images of {second} are in {first} too: {shorten(pairs, 5)}."
        notes += [told] * bool(pairs)
    return notes


def _paired(split: Path) -> list[tuple[Path, Path]]:
    found = {}
    for part in (IMAGES, MASKS):
        folder = split / part
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found[part] = {path.stem: path for path in files if is_image_file(path)}
    images, masks = found[IMAGES], found[MASKS]
    if not images or images.keys() != masks.keys():
        alone = shorten(sorted(images.keys() ^ masks.keys())) or "none"
        raise InputError(
            f"{split} does not have a mask for each image",
            got=f"{len(images)} images, {len(masks)} masks"
            + (f"; alone: {alone}" if alone else ""),
            expected=f"{_LAYOUT}, alike in both folders",
            remedy="a challenge keeps the masks of its test images: split its training images anew",
        )
    return [(images[stem], masks[stem]) for stem in images]


def _read_mask(path: Path, image: Path) -> Labels:
    try:
        with Image.open(path) as file, Image.open(image) as other:
            sizes = file.size, other.size
            if file.mode not in ("L", "P", "1"):
                raise ValueError(f"colours ({file.mode})")
            mask = np.asarray(file.convert("L") if file.mode == "1" else file, dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The mask {path} cannot be read", got=error, expected="a gray PNG of 8 bit"
        ) from error
    if sizes[0] != sizes[1]:
        raise InputError(
            f"The mask {path} is not as large as its image",
            got=f"{sizes[0][0]} x {sizes[0][1]} pixels",
            expected=f"{sizes[1][0]} x {sizes[1][1]}",
        )
    return mask


def _classes(folder: Path, masks: list[Labels]) -> tuple[list[int], list[str]]:
    """Say which gray values stand for which classes."""
    path = folder / INFO
    if not path.is_file():
        found = sorted({int(value) for mask in masks for value in np.unique(mask)})
        return found, ["background", *(f"value {value}" for value in found[1:])]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [content[key] for key in sorted(content, key=int)]
        return [int(row["value"]) for row in rows], [str(row["label"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not say which value is which class",
            got=error,
            expected='{"0": {"value": 0, "label": "Elsewhere"}, "1": {"value": 80, ...}, ...}',
        ) from error


def _numbered(mask: Labels, values: list[int], image: Path, folder: Path) -> Labels:
    number = np.full(256, 255, np.uint8)
    number[values] = range(len(values))
    numbered = number[mask]
    if (numbered == 255).any():
        unknown = sorted({int(value) for value in np.unique(mask[numbered == 255])})
        raise InputError(
            f"The mask of {image.relative_to(folder)} has values of no class",
            got=shorten([str(value) for value in unknown]),
            expected=f"{', '.join(map(str, values))}, as {INFO} says",
            remedy="masks are PNG, not JPEG, and enlarged without interpolation",
        )
    return numbered


def _owner(image: Path, split: str, table: dict[str, Owner]) -> Owner:
    keys = (f"{split}/{IMAGES}/{image.name}", f"{split}/{image.name}", image.name)
    return next((table[key] for key in keys if key in table), owner_in_name(image.stem))
