"""Which images are meant: of a table, a folder, or a file; a volume's B-scans one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from retfiner.common.errors import InputError
from retfiner.data.image_places import ImagePlaces
from retfiner.data.pair_table import EXAM, MODALITY, SLICE_COLUMN, locate_images
from retfiner.data.table_file import read_table
from retfiner.vision.images import ImageAddress, count_images, is_image_file

TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".parquet")


class EmbeddedImage(NamedTuple):
    """An image, and the exam that a table says it is of."""

    address: ImageAddress
    exam: str = ""


def list_images(data: Path, image_column: str, root: Path | None) -> list[EmbeddedImage]:
    """List the images of a table, a folder or a file, in its order.

    Raises:
        InputError: If there are none.
    """
    if data.is_dir():
        found = [EmbeddedImage(ImageAddress(path)) for path in sorted(data.rglob("*"))
                 if is_image_file(path)]  # fmt: skip
    elif data.suffix.lower() in TABLES:
        found = _of_table(data, image_column, root)
    else:
        found = [EmbeddedImage(ImageAddress.parse(data))]
    images = [one for image in found for one in _each(image)]
    if not images:
        raise InputError(f"{data} holds no image", expected="a table, a folder or a file of images")
    return images


def _of_table(path: Path, image_column: str, root: Path | None) -> list[EmbeddedImage]:
    cells = read_table(path, [image_column], [SLICE_COLUMN, MODALITY, EXAM]).cells
    names = [name.strip() for name in cells[image_column]]
    places = ImagePlaces.of(root or path.parent, names)
    located = locate_images(places, names, cells.get(SLICE_COLUMN), cells.get(MODALITY))
    exams = cells.get(EXAM, [""] * len(names))
    return [EmbeddedImage(image, exam) for (image, _), exam in zip(located, exams, strict=True)]


def _each(image: EmbeddedImage) -> list[EmbeddedImage]:
    """Name each B-scan of a volume that is given as a whole; what cannot be opened stays."""
    if image.address.index is not None:
        return [image]
    try:
        count = count_images(image.address)
    except InputError:
        count = 1
    if count == 1:
        return [image]
    return [image._replace(address=replace(image.address, index=k)) for k in range(count)]
