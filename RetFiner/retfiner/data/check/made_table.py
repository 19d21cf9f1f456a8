"""Tables of pairs that prepare_pairs.py makes first: of a published set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retfiner.common.errors import InputError
from retfiner.data.public import PUBLIC_SETS
from retfiner.data.public.spec import Pair, as_table

if TYPE_CHECKING:
    from retfiner.data.check.prepare_pairs import PreparePairsConfig

PUBLISHED, PANELS = "published.csv", "panels"


@contextmanager
def made_table(config: PreparePairsConfig) -> Iterator[tuple[PreparePairsConfig, list[str]]]:
    """Yield settings whose table is there, and notes; what was made goes if the block fails.

    Raises:
        InputError: If the source is no such set.
    """
    if config.source is None:
        yield config, []
        return
    name, path = config.source[0], Path(config.source[1]).expanduser()
    folder = config.output.resolve()
    table, images = folder / PUBLISHED, folder / PANELS
    try:
        pairs, notes = _read(name, path, images, config.modality)
        folder.mkdir(parents=True, exist_ok=True)
        as_table(pairs).to_csv(table, index=False, lineterminator="\n")
        made = sum(pair.made_from != Pair._field_defaults["made_from"] for pair in pairs)
        if made:
            notes.append(f"{made:,} reports are made from {pairs[0].made_from} by a template")
        config = replace(config, csv=table, source=None)
        if not PUBLIC_SETS[name].patients:
            notes.append("the set names no patients: one may be on both sides of the split")
            config = replace(config, patient_column="none")
        yield config, [f"{name}: {note}" for note in notes]
    except BaseException:
        table.unlink(missing_ok=True)
        shutil.rmtree(images, ignore_errors=True)
        raise


def _read(name: str, path: Path, images: Path, modality: str) -> tuple[list[Pair], list[str]]:
    if not path.exists():
        raise InputError(
            f"there is no {path}", expected=f"{PUBLIC_SETS[name].layout}",
            remedy=f"download it: {PUBLIC_SETS[name].where}",
        )  # fmt: skip
    found, notes = PUBLIC_SETS[name].read(path, images)
    pairs = [pair for pair in found if modality in ("all", pair.modality)]
    if len(pairs) < len(found):
        notes.append(f"{len(found) - len(pairs):,} pairs of other kinds of image left out:"
                     f" --modality {modality}")  # fmt: skip
    for pair in found:
        if pair.image.parent == images and modality not in ("all", pair.modality):
            pair.image.unlink()
    if not pairs:
        raise InputError(f"{path} holds no pair of {name} that is wanted",
                         got=f"{len(found):,} pairs of all kinds, --modality {modality}",
                         expected=PUBLIC_SETS[name].layout)  # fmt: skip
    return pairs, notes
