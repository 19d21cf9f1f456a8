"""The OCT summary set: B-scans with a sentence each, ``img_path,label,desc`` in a CSV.

Traps: paths are those of the authors' machine (u); the end of a path decides. The sentences of one
class are much alike, and nothing tells the patients apart.
"""

from __future__ import annotations

from pathlib import Path

from retfiner.common.errors import InputError
from retfiner.data.image_places import ImagePlaces
from retfiner.data.public.spec import Pair, PublicSet, read_columns

LICENCE = "unstated"


def read(path: Path, _folder: Path) -> tuple[list[Pair], list[str]]:
    """Read the pairs.

    Raises:
        InputError: If there is not one CSV, or it lacks a column.
    """
    tables = [path] if path.is_file() else sorted(path.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(
            f"{path} does not say which table is meant",
            got=f"{len(tables)} CSVs",
            expected="one, with img_path, label and desc",
            remedy="give the CSV itself",
        )
    cells = read_columns(tables[0], ["img_path", "desc"], ["label"])
    places = ImagePlaces.of(tables[0].parent, cells["img_path"])
    pairs = [
        Pair(tables[0].parent / places.find(name), text, "", "oct", LICENCE)
        for name, text in zip(cells["img_path"], cells["desc"], strict=True)
    ]
    return pairs, places.notes()


SET = PublicSet(
    layout="the CSV with img_path, label and desc, or its folder",
    licence=LICENCE,
    citation="as its authors ask where you had it from",
    where="its authors",
    patients="",
    read=read,
)
