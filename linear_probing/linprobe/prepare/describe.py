"""``dataset.json``: what a prepared data set is, where it comes from, and what was done to it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from linprobe.prepare.placing import DESCRIPTION
from linprobe.prepare.source import SourceFile
from linprobe.prepare.spec import DataSetSpec
from linprobe.prepare.splits import SPLITS
from linprobe.prepare.table import Row
from retfiner.common.cli import as_plain
from retfiner.common.files import write_text

FORMAT = 1
"""Raised when a reader of ``dataset.json`` would have to know of a change."""
_SOFTWARE = ("retfiner", "numpy", "scipy", "scikit-learn", "pillow")

Counts = dict[str, dict[str, tuple[int, int | None]]]
"""Images and patients by split and class; of patients, None where any is unknown."""


def count(rows: Sequence[Row]) -> Counts:
    """Count images and patients by split and class."""
    counts: Counts = {}
    classes = sorted({row.label for row in rows})
    for split in SPLITS:
        inside = [row for row in rows if row.split == split]
        counts[split] = {}
        for label in (*classes, ""):
            chosen = [row for row in inside if label in ("", row.label)]
            known = all(row.patient for row in chosen)
            counts[split][label] = (
                len(chosen),
                len({row.patient for row in chosen}) if known else None,
            )
    return counts


def write_description(
    folder: Path,
    spec: DataSetSpec,
    rows: Sequence[Row],
    done: dict[str, Any],
    files: Sequence[SourceFile],
    notes: Sequence[str],
) -> None:
    """Write ``dataset.json``."""
    counts = {
        split: {
            label or "all": {"images": images, "patients": patients}
            for label, (images, patients) in by_class.items()
        }
        for split, by_class in count(rows).items()
    }
    description = {
        "format": FORMAT,
        "name": spec.name,
        "task": spec.task,
        "licence": spec.licence,
        "where": spec.where,
        "citation": spec.citation,
        "counts": counts,
        "done": done,
        "source": as_plain(list(files)),
        "notes": list(notes),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _SOFTWARE},
        },
    }
    text = json.dumps(description, indent=2, ensure_ascii=False)
    # A folder's name need not be UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    write_text(folder / DESCRIPTION, text + "\n")
