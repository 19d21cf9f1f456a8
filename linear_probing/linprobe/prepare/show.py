"""What is printed: the data sets there are, and what was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from linprobe.prepare.describe import count
from linprobe.prepare.prepare import Prepared
from linprobe.prepare.spec import DataSetSpec
from linprobe.prepare.splits import SPLITS
from linprobe.prepare.table import Row
from retfiner.common.commands import command


def console() -> Console:
    """Make a console; a log file has no width, and the tables need one."""
    made = Console()
    return made if made.is_terminal else Console(width=140)


def table_of_data_sets(specs: Iterable[DataSetSpec]) -> Table:
    """List data sets: name, task, classes, licence, and where to download."""
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("name", "task", "classes", "licence", "where"):
        # A name or an address that is broken over lines cannot be copied.
        table.add_column(title, overflow="fold", no_wrap=title == "name")
    for spec in specs:
        table.add_row(spec.name, spec.task, ", ".join(spec.classes), spec.licence, spec.where)
    return table


def table_of_counts(rows: Sequence[Row]) -> Table:
    """Count images and patients by class and split."""
    counts = count(rows)
    known = all(counts[split][""][1] is not None for split in SPLITS)
    table = Table(box=box.SIMPLE_HEAD, caption="images / patients" if known else "images")
    table.add_column("class")
    for split in SPLITS:
        table.add_column(split, justify="right")
    classes = list(counts["train"])
    for label in classes:
        cells = []
        for split in SPLITS:
            images, patients = counts[split][label]
            cells.append(f"{images:,} / {patients:,}" if known else f"{images:,}")
        table.add_row(label or "all", *cells, end_section=label == classes[-2])
    return table


def show_prepared(prepared: Prepared) -> None:
    """Print counts, notes, and what to do next."""
    out = console()
    out.print(table_of_counts(prepared.rows))
    for note in prepared.notes:
        out.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    words = ("--init_weights", "path/to/base.pth", "--data_root", prepared.folder.parent,
             "--data_set", prepared.folder.name)  # fmt: skip
    lines = (
        f"\nWritten: {prepared.folder} (images, split.csv, dataset.json)",
        f"Next:    {command('linear_probing/probe.py', *words)}",
    )
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
