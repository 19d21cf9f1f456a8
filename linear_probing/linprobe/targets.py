"""Tasks beyond classes of folders, read from columns ``target_*`` of a data set's ``split.csv``.

What a column is about is read from its values: words are classes; numbers are grades where they are
whole and at most :data:`HIGHEST_GRADE`, else values for a regression; columns of 0 and 1 are,
together, the labels of which an image may have several. Images whose cell is empty are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from linprobe.datasets import (
    SPLITS,
    DataSet,
    Split,
    check_spelling,
    fingerprint_of,
    notes_on_absent,
    read_data_set,
)
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import TARGET, read_split_rows, row_of
from retfiner.common.predictions import SEPARATOR

_DECIMAL = re.compile(r"[-+]?\d+[.,]\d+")
HIGHEST_GRADE = 10
"""Of a scale of grades, as of retinopathy (0 to 4) or of AMD (to 9, AREDS)."""
_NO_VALUE = ("nan", "n/a", "na", "#n/a", "<na>", "null", "nat", "-")
"""What programs write into a cell without a value; ``none`` may well be a grade of something."""
_READ_AS = {
    "classes": "words: {}",
    "ordinal": "grades: {}",
    "regression": "values: a regression",
    "multilabel": "labels, of which an image may have several: {}",
}


def read_tasks(folder: Path, wanted: Sequence[str] = SPLITS) -> list[DataSet]:
    """Read the tasks of a data set: its classes, if it has two, and those of its target columns.

    The latter are called ``<data set>_<column>``, that of several labels ``<data set>_labels``.

    Raises:
        InputError: If the data set, or a column, cannot be used.
    """
    table = {row["image"]: row for row in read_split_rows(folder)}
    every = dict.fromkeys(name for row in table.values() for name in row if name)
    names = [name for name in every if name.startswith(TARGET)]
    odd = [name for name in names if name == TARGET or SEPARATOR in name]
    if odd:
        raise InputError(f"{folder}: a target without a name, or with {SEPARATOR} in it",
                         got=shorten(odd), expected=f"{TARGET}<name>")  # fmt: skip
    data = read_data_set(folder, wanted, least=1 if names else 2)
    rows = {
        split: [row_of(path, folder, table) or {} for path in part.paths]
        for split, part in data.splits.items()
    }
    columns = {
        name: {split: [_cell(row.get(name)) for row in own] for split, own in rows.items()}
        for name in names
    }
    kinds = {name: _kind_of(folder, name, cells) for name, cells in columns.items()}
    labels = {name: columns[name] for name, kind in kinds.items() if kind == "multilabel"}
    tasks = [data] if len(data.classes) > 1 else []
    tasks += [_task(data, "multilabel", labels)] if labels else []
    alone = (name for name in names if name not in labels)
    return [*tasks, *(_task(data, kinds[name], {name: columns[name]}) for name in alone)]


def _cell(text: str | None) -> str:
    cell = (text or "").strip()
    return "" if cell.casefold() in _NO_VALUE else cell


def _kind_of(folder: Path, name: str, cells: Mapping[str, Sequence[str]]) -> str:
    known = {cell for split in cells.values() for cell in split if cell}
    try:
        numbers = {float(cell) for cell in known}
    except ValueError:
        _check_words(folder, name, cells, known)
        return "classes"
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{folder}: nothing can be learned from the column {name}",
            got=f"values {shorten(sorted(known)) or 'that are all empty'}",
            expected="two different finite values, or more",
        )
    if numbers <= {0, 1}:
        return "multilabel"
    grades = all(number.is_integer() and 0 <= number <= HIGHEST_GRADE for number in numbers)
    return "ordinal" if grades else "regression"


def _check_words(
    folder: Path, name: str, cells: Mapping[str, Sequence[str]], known: set[str]
) -> None:
    """Refuse words that are values, or one word in two spellings."""
    decimals = sorted(cell for cell in known if _DECIMAL.fullmatch(cell))
    if decimals:
        words = sorted(known - set(decimals))
        raise InputError(
            f"{folder}: the column {name} has values and words, or decimals with a comma",
            got=shorten([*decimals[:3], *words[:3]], 6),
            expected="numbers with a decimal point, and empty cells where there is none; or words",
        )
    found = {split: sorted({*values} - {""}) for split, values in cells.items()}
    check_spelling(f"{folder}, column {name}", found, "write it alike in all rows")


def _task(data: DataSet, kind: str, columns: Mapping[str, Mapping[str, Sequence[str]]]) -> DataSet:
    """Give a data set the labels of one column or, for several labels an image, of more."""
    names = [name.removeprefix(TARGET) for name in columns]
    called = f"{data.name}_{'labels' if kind == 'multilabel' else names[0]}"
    cells = {split: np.array([c[split] for c in columns.values()]).T for split in data.splits}
    rows = {split: np.flatnonzero((found != "").all(axis=1)) for split, found in cells.items()}
    empty = [split for split, known in rows.items() if not len(known)]
    if empty:
        expected = f"values of {', '.join(columns)} in each split"
        told = f"{called} has no image with a value in {' and '.join(empty)}"
        raise InputError(told, expected=expected)
    classes = names
    if kind in ("classes", "ordinal"):
        there = {_plain(cell) for split, known in rows.items() for cell in cells[split][known, 0]}
        classes = sorted(map(str, there), key=float if kind == "ordinal" else str)
    splits = {
        split: _relabelled(part.subset(rows[split]), kind, cells[split][rows[split]], classes)
        for split, part in data.splits.items()
    }
    left = sum(map(len, data.splits.values())) - sum(map(len, splits.values()))
    notes = [note for note in data.notes if not note.startswith("No image of")]
    notes.append(f"Read as {_READ_AS[kind].format(shorten(classes, 20))}.")
    notes += [f"{left} images without a value are left out."] * bool(left)
    notes += [] if kind == "regression" else notes_on_absent(classes, splits)
    return replace(data, name=called, classes=classes, splits=splits, notes=notes, task=kind,
                   sha256=fingerprint_of([kind, *classes], splits))  # fmt: skip


def _plain(cell: str) -> str:
    """Write a whole number without a decimal point: tables say 1.0 where a cell is empty."""
    try:
        return str(int(float(cell))) if float(cell).is_integer() else cell
    except (ValueError, OverflowError):
        return cell


def _relabelled(part: Split, kind: str, cells: np.ndarray, classes: Sequence[str]) -> Split:
    if kind == "regression":
        return replace(part, labels=cells[:, 0].astype(np.float64))
    if kind == "multilabel":
        return replace(part, labels=cells.astype(np.float64).astype(np.int64))
    return replace(part, labels=np.array([classes.index(_plain(cell)) for cell in cells[:, 0]]))
