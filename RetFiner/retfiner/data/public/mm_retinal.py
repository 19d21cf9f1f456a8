"""MM-Retinal: images of textbooks with captions in English and Chinese.

Tables with the header ``,image,caption`` and folders ``CFP``, ``FFA`` and ``OCT``. Given a folder,
all of its tables are read; given a table, that one alone, so that one language can be taken.

Traps: the first column has no name. Some captions are in Chinese, which an English text encoder
does not know. How tables name images is not known for each of them (u): a path from the table, or a
bare name that is looked for below the folder, first in that of the table's own kind.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PureWindowsPath

from retfiner.common.errors import InputError
from retfiner.data.public.spec import Pair, PublicSet, images_below, modality_of, read_columns

LICENCE = "to be asked of the authors: research use"


def read(path: Path, _folder: Path) -> tuple[list[Pair], list[str]]:
    """Read the pairs of all tables.

    Raises:
        InputError: If there is no table, or one lacks a column.
    """
    root = path.parent if path.is_file() else path
    tables = [path] if path.is_file() else sorted(path.rglob("*.csv"))
    if not tables:
        raise InputError(f"{path} holds no table", expected="CSVs with the header ,image,caption")
    named: dict[str, list[Path]] = defaultdict(list)
    for image in images_below(root):
        named[image.name.casefold()].append(image)
    pairs, doubtful = [], 0
    for table in tables:
        own = modality_of((*table.relative_to(root).parent.parts, table.stem))
        cells = read_columns(table, ["image", "caption"], [])
        for name, caption in zip(cells["image"], cells["caption"], strict=True):
            image, is_sure = _find(name, table.parent, named, own)
            doubtful += not is_sure
            parts = image.relative_to(root).parts if image.is_relative_to(root) else image.parts
            pairs.append(Pair(image, caption, "", modality_of(parts[:-1], own), LICENCE))
    notes = [f"{doubtful:,} names stand for several images each; the first by path was taken"]
    return pairs, notes * bool(doubtful)


def _find(name: str, folder: Path, named: dict[str, list[Path]], own: str) -> tuple[Path, bool]:
    """Find the image of a name, and say whether it can only be that one."""
    plain = PureWindowsPath(name)  # takes both kinds of slashes
    straight = folder / plain.as_posix()
    if straight.is_file():
        return straight, True
    found = named.get(plain.name.casefold(), [])
    fitting = [p for p in found if p.as_posix().endswith("/" + plain.as_posix().lstrip("./"))]
    same_kind = [p for p in fitting or found if modality_of(p.parts[:-1]) == own]
    chosen = same_kind or fitting or found
    return (chosen[0] if chosen else straight), len(chosen) <= 1


SET = PublicSet(
    layout="the folder with CFP, FFA and OCT and the tables; or one table",
    licence=LICENCE,
    citation="Wu et al.: MM-Retinal: Knowledge-Enhanced Foundational Pretraining with Fundus "
    "Image-Text Expertise. MICCAI 2024",
    where="https://github.com/lxirich/MM-Retinal",
    patients="",
    read=read,
)
