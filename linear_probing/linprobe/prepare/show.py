"""What is shown: the data sets there are, what was written, and a volume along two of its axes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from rich import box
from rich.table import Table

from linprobe.prepare.spec import DataSetSpec, GrayImage
from linprobe.prepare.tables import SPLITS, count
from linprobe.prepare.volumes import read_slice
from retfiner.common.commands import command
from retfiner.common.console import wide_console

if TYPE_CHECKING:
    import pandas as pd

    from linprobe.prepare.prepare import Prepared

WIDTH = 140
"""Letters of a line in a log file, which a table of data sets needs."""
CAPTION = 24
"""Height in pixels of the line above a picture."""


def table_of_data_sets(specs: Iterable[DataSetSpec]) -> Table:
    """List data sets: name, task, classes, licence, and where to download."""
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("name", "task", "classes", "licence", "where"):
        # A name or an address that is broken over lines cannot be copied.
        table.add_column(title, overflow="fold", no_wrap=title == "name")
    for spec in specs:
        table.add_row(spec.name, spec.task, ", ".join(spec.classes), spec.licence, spec.where)
    return table


def table_of_counts(rows: pd.DataFrame) -> Table:
    """Count images and patients by class and split."""
    counts = count(rows)
    known = all(counts[split][""][1] is not None for split in SPLITS)
    table = Table(box=box.SIMPLE_HEAD, caption="images / patients" if known else "images")
    table.add_column("class")
    for split in SPLITS:
        table.add_column(split, justify="right")
    classes = list(counts["train"])
    for label in classes:
        numbers = (counts[split][label] for split in SPLITS)
        cells = [f"{images:,} / {patients:,}" if known else f"{images:,}"
                 for images, patients in numbers]  # fmt: skip
        table.add_row(label or "all", *cells, end_section=label == classes[-2])
    return table


def show_prepared(prepared: Prepared) -> None:
    """Print counts, notes, and what to do next."""
    out = wide_console(WIDTH)
    say = partial(out.print, markup=False, highlight=False, soft_wrap=True)
    out.print(table_of_counts(prepared.rows))
    for note in prepared.notes:
        say(f"note: {note}")
    words = ("--init_weights", "path/to/base.pth", "--data_root", prepared.folder.parent,
             "--data_set", prepared.folder.name)  # fmt: skip
    say(f"\nWritten: {prepared.folder} (images, split.csv, dataset.json)")
    say(f"Next:    {command('linear_probing/probe.py', *words)}")


def picture_of_axes(path: Path, name: str, shape: tuple[int, ...], taken: int) -> GrayImage:
    """Show the central slice of a NumPy archive's volume along its first and along its last axis.

    Along the right one there are layers from side to side, as in any B-scan; along the other,
    what the scanner never saw as one picture. ``taken``, 0 or 2, is the axis that is taken.
    """
    pictures = []
    for axis, flag in ((0, "first"), (2, "last")):
        image = read_slice(path, name, axis, shape[axis] // 2)
        text = f"--slice_axis {flag}" + (": this was taken" if axis == taken else "")
        canvas = Image.new("L", (max(image.shape[1], 220), image.shape[0] + CAPTION))
        canvas.paste(Image.fromarray(image), (0, CAPTION))
        ImageDraw.Draw(canvas).text((4, 6), text, fill=255)
        pictures.append(np.asarray(canvas))
    width = max(picture.shape[1] for picture in pictures)
    return np.vstack([np.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in pictures])
