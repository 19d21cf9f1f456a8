"""What is shown: the data sets there are, and what was written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from rich import box
from rich.table import Column, Table

from linprobe.prepare.spec import DataSetSpec
from linprobe.prepare.tables import SPLITS, count
from retfiner.common.commands import command
from retfiner.common.console import wide_console

if TYPE_CHECKING:
    from linprobe.prepare.prepare import Prepared

WIDTH = 140
"""Letters of a line in a log file, which a table of data sets needs."""


def table_of_data_sets(specs: Iterable[DataSetSpec]) -> Table:
    """List data sets: name, task, classes, licence, and where to download."""
    # An address that is broken over lines cannot be copied.
    columns = (Column(title, overflow="fold") for title in ("task", "classes", "licence", "where"))
    table = Table(Column("name", no_wrap=True), *columns, box=box.SIMPLE_HEAD)
    for spec in specs:
        table.add_row(spec.name, spec.task, ", ".join(spec.classes), spec.licence, spec.where)
    return table


def show_prepared(prepared: Prepared) -> None:
    """Print counts, notes, and what to do next."""
    out = wide_console(WIDTH)
    say = partial(out.print, markup=False, highlight=False, soft_wrap=True)
    counts = count(prepared.rows).unstack("split")
    known = [what for what in ("images", "patients") if (counts[what] >= 0).all(axis=None)]
    say(counts[[(what, split) for what in known for split in SPLITS]].to_string())
    for note in prepared.notes:
        say(f"note: {note}")
    words = ("--init_weights", "path/to/base.pth", "--data_root", prepared.folder.parent,
             "--data_set", prepared.folder.name)  # fmt: skip
    say(f"\nWritten: {prepared.folder} (images, split.csv, dataset.json)")
    say(f"Next:    {command('linear_probing/probe.py', *words)}")
