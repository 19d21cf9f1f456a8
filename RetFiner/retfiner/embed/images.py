"""Which images are meant: of a table, a folder, or a file; a volume's B-scans one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from retfiner.common.errors import InputError
from retfiner.data.image_places import ImagePlaces
from retfiner.data.kinds import see_kinds
from retfiner.data.pair_table import (
    EXAM,
    MODALITY,
    NO_SLICE_COLUMN,
    SLICE_COLUMN,
    Reading,
    as_kind,
    locate_images,
)
from retfiner.data.table_file import read_table, require_whole_rows
from retfiner.vision.images import ImageAddress, count_images, list_image_files

TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".parquet")


class EmbeddedImage(NamedTuple):
    """An image, and the exam that a table says it is of, with the row that names it.

    ``unclear`` says why it cannot be told which image the row means; None where it can.
    """

    address: ImageAddress
    exam: str = ""
    row: int | None = None
    unclear: str | None = None


def list_images(
    data: Path,
    image_column: str,
    root: Path | None,
    reading: Reading,
    slice_column: str | None = None,
) -> list[EmbeddedImage]:
    """List the images of a table, a folder or a file, in its order.

    ``reading`` says how a table's cells are read that can be read in two ways; ``slice_column``,
    as a training named it, is by default looked for under its usual name.

    Raises:
        InputError: If there are none.
    """
    if data.is_dir():
        files = map(ImageAddress, list_image_files(data))
        found = [EmbeddedImage(image) for image in _as_seen(files)]
    elif data.suffix.lower() in TABLES:
        found = _of_table(data, image_column, root, reading, slice_column or SLICE_COLUMN)
    else:
        found = [EmbeddedImage(image) for image in _as_seen([ImageAddress.parse(data)])]
    images = [one for image in found for one in _each(image)]
    if not images:
        raise InputError(f"{data} holds no image", expected="a table, a folder or a file of images")
    return images


def _of_table(
    path: Path, image_column: str, root: Path | None, reading: Reading, slice_column: str
) -> list[EmbeddedImage]:
    usual = slice_column if slice_column == NO_SLICE_COLUMN else SLICE_COLUMN
    optional = [*dict.fromkeys((slice_column, usual)), MODALITY, EXAM]
    table = read_table(path, [image_column], optional, reading.encoding)
    require_whole_rows(table, path)
    cells = table.cells
    names = [name.strip() for name in cells[image_column]]
    places = ImagePlaces.of(root or path.parent, names)
    blank = [""] * len(names)
    modalities, exams = cells.get(MODALITY, blank), cells.get(EXAM, blank)
    first, slices = reading.first_slice or 0, cells.get(slice_column, cells.get(usual))
    located = locate_images(places, names, slices, modalities, first_slice=first)
    images = [image for image, _ in located]
    seen = iter(_as_seen(i for i, m in zip(images, modalities, strict=True) if not m.strip()))
    images = [i if m.strip() else next(seen) for i, m in zip(images, modalities, strict=True)]
    return list(map(EmbeddedImage, images, exams, table.rows, (why for _, why in located)))


def _as_seen(images: Iterable[ImageAddress]) -> list[ImageAddress]:
    """Take images as what their files show, where their addresses do not say it."""
    listed = list(images)
    kinds = see_kinds(image for image in listed if image.read_as.modality is None)
    return [image if image.read_as.modality else as_kind(image, kinds.get(image.path, ""))
            for image in listed]  # fmt: skip


def _each(image: EmbeddedImage) -> list[EmbeddedImage]:
    """Name each B-scan of a volume that is given as a whole; what cannot be opened stays."""
    if image.unclear is not None or image.address.index is not None:
        return [image]
    try:
        count = count_images(image.address)
    except InputError:
        count = 1
    if count == 1:
        return [image]
    return [image._replace(address=replace(image.address, index=k)) for k in range(count)]
