"""Checked pairs in tar files, as WebDataset has them: members ``<key>.png``, ``.txt``, ``.json``.

The tables name each image by its place in them (:mod:`retfiner.vision.images.tar`), so that pairs
are read, shuffled, shared out and resumed as those of loose files are.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from retfiner.common.progress import progress
from retfiner.data.check.metadata import without_remarks
from retfiner.data.check.split import SIDES, TRAIN
from retfiner.data.pair_table import PairRow
from retfiner.vision.images import AS_SAID, ImageAddress, ReadAs, open_images
from retfiner.vision.images.png import SIGNATURE
from retfiner.vision.images.tar import members_of, read_member

KINDS = ((SIGNATURE, ".png"), (b"\xff\xd8", ".jpg"))
"""What pictures begin with that are taken as they are."""


def shards_in(folder: Path) -> list[Path]:
    """List the shards that a folder holds."""
    return [path for side in SIDES for path in folder.glob(f"{side}-[0-9][0-9][0-9][0-9][0-9].tar")]


def write_shards(
    rows: Sequence[PairRow], sides: Sequence[str], shards: int, folder: Path
) -> list[str]:
    """Write pairs to ``<side>-00000.tar`` and on, in their order, and return each image's cell.

    The training pairs fill ``shards`` files; those of the other sides hold as many each. Rows of
    one image name one place, so that they are known as such.

    Raises:
        InputError: If an image cannot be read.
    """
    each = math.ceil(sides.count(TRAIN) / shards)
    cells: dict[ImageAddress, str] = {}
    with progress("writing shards", len(rows)) as bar:
        for side in dict.fromkeys(sides):
            own = [i for i, of_row in enumerate(sides) if of_row == side]
            for number, start in enumerate(range(0, len(own), each)):
                path = folder / f"{side}-{number:05d}.tar"
                with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                    names = {i: _add(tar, f"{i:08d}", rows[i]) for i in own[start : start + each]}
                members = members_of(path, path.stat().st_mtime_ns)
                for i, (name, read_as) in names.items():
                    place = ImageAddress(Path(path.name), None, str(members[name]), read_as)
                    cells.setdefault(rows[i].image, str(place))
                bar.update(len(names))
    return [cells[row.image] for row in rows]


def _add(tar: tarfile.TarFile, key: str, row: PairRow) -> tuple[str, ReadAs]:
    suffix, image, read_as = encoded(row.image)
    about = json.dumps({"patient_id": row.patient, **row.kept}, ensure_ascii=False)
    for end, content in ((suffix, image), (".txt", row.report.encode()), (".json", about.encode())):
        member = tarfile.TarInfo(key + end)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return key + suffix, read_as


def encoded(address: ImageAddress) -> tuple[str, bytes, ReadAs]:
    """Give an image as PNG or JPEG, with its suffix and what is left to be said of it.

    Files of these kinds are taken as they are, without what is written beside the pixels and may
    name somebody. Of every other one the gray values are written with 8 bits if that is exact, and
    otherwise with 16, which changes none by more than 1/131,070.

    Raises:
        InputError: If it cannot be read.
    """
    content = b""
    if address.is_in_tar:
        content = read_member(address.path, str(address.member))
    elif address.index is None and address.member is None:
        content = address.path.read_bytes()
    for start, suffix in KINDS:
        if content.startswith(start):
            return suffix, without_remarks(content), address.read_as
    file = open_images(address)
    values = file.read(file.place(address.index))
    pixels = np.round(values * 255).astype(np.uint8)
    if values.ndim == 2 and not np.array_equal(pixels / np.float32(255), values):
        pixels = np.round(values * 65535).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return ".png", stream.getvalue(), replace(AS_SAID, modality=address.read_as.modality)
