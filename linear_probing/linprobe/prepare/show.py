"""What is shown: the data sets there are, and what was written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from linprobe.prepare.spec import DataSetSpec
from linprobe.prepare.tables import SPLITS, count
from retfiner.common.commands import command
from retfiner.common.console import wide_console

if TYPE_CHECKING:
    import pandas as pd

    from linprobe.prepare.prepare import Prepared

WIDTH = 140
"""Letters of a line in a log file, which a table of data sets needs."""


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
