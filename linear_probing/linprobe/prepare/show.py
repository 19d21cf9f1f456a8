"""What is shown: the data sets there are, what was written, a volume along two of its axes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from linprobe.prepare.spec import DataSetSpec, GrayImage
from linprobe.prepare.tables import SPLITS, count
from linprobe.prepare.volumes import read_slice
from retfiner.common.commands import command

if TYPE_CHECKING:
    from linprobe.prepare.prepare import Prepared


def list_of_data_sets(specs: Iterable[DataSetSpec]) -> str:
    """List data sets: name, task, classes, licence, and where to download.

    A line each: a name or an address that is broken over lines cannot be copied.
    """
    return "\n\n".join(
        "\n    ".join(
            (f"{spec.name}: {spec.task}", ", ".join(spec.classes), spec.licence, spec.where)
        )
        for spec in specs
    )


def show_prepared(prepared: Prepared) -> None:
    """Print counts, notes, and what to do next."""
    counts = count(prepared.rows).unstack("split")
    known = [what for what in ("images", "patients") if (counts[what] >= 0).all(axis=None)]
    print(counts[[(what, split) for what in known for split in SPLITS]].to_string())
    for note in prepared.notes:
        print(f"note: {note}")
    words = ("--init_weights", "path/to/base.pth", "--data_root", prepared.folder.parent,
             "--data_set", prepared.folder.name)  # fmt: skip
    print(f"\nWritten: {prepared.folder} (images, split.csv, dataset.json)")
    print(f"Next:    {command('linear_probing/probe.py', *words)}")


def picture_of_axes(path: Path, name: str, shape: tuple[int, ...], taken: int) -> GrayImage:
    """Show the central slice of an archive's volume along its first and along its last axis.

    Along the right one there are layers from side to side, as in any B-scan; along the other,
    what the scanner never saw as one picture. ``taken``, 0 or 2, is the axis that is taken.
    """
    slices = [read_slice(path, name, axis, shape[axis] // 2) for axis in (0, 2)]
    width = max(220, *(image.shape[1] for image in slices))
    rows = []
    for axis, image in zip((0, 2), slices, strict=True):
        text = f"--slice_axis {'last' if axis else 'first'}" + ": this was taken" * (axis == taken)
        caption = Image.new("L", (width, 24))
        ImageDraw.Draw(caption).text((4, 6), text, fill=255)
        rows += [np.asarray(caption), np.pad(image, ((0, 0), (0, width - image.shape[1])))]
    return np.vstack(rows)
