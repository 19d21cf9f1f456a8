"""Where a run's folder lies, and how it comes there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError
from retfiner.common.results.reading import (
    FORMAT,
    METRICS_FILE,
    PREDICTIONS_FILE,
    read_metrics_file,
)
from retfiner.common.results.run import Run, RunKey, check_run

CURVE_FILE = "learning_curve.csv"
HEAD_FILE = "head.pth"


def _candidates(root: Path, key: RunKey, run_fingerprint: str) -> list[Path]:
    """Folders in which a run may lie, in order of preference."""
    seed = f"seed{key.seed}"
    names = (seed, f"{seed}-{run_fingerprint[:8]}", f"{seed}-{run_fingerprint}")
    return [root / key.parent / name for name in names]


def find_finished(root: Path | str, key: RunKey, run_fingerprint: str) -> Path | None:
    """Find the folder of a finished run that has exactly these settings.

    Raises:
        InputError: If a folder that could be it is damaged.
    """
    for folder in _candidates(Path(root), key, run_fingerprint):
        if _is_occupied(folder) and read_metrics_file(folder)["fingerprint"] == run_fingerprint:
            return folder
    return None


def run_folder(root: Path | str, key: RunKey, run_fingerprint: str) -> Path:
    """Say where a run lies or will lie: ``seed<k>``, or beside it where that has other settings.

    Raises:
        InputError: If a folder that could be it is damaged, or all are taken.
    """
    finished = find_finished(root, key, run_fingerprint)
    if finished is not None:
        return finished
    candidates = _candidates(Path(root), key, run_fingerprint)
    for folder in candidates:
        if not _is_occupied(folder):
            return folder
    raise InputError(
        f"Other runs lie in the folder that belongs to a run: {candidates[-1]}",
        expected=f"settings with fingerprint {run_fingerprint}",
        remedy="rename or delete that folder",
    )


def _is_occupied(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def write_run(
    root: Path | str,
    run: Run,
    *,
    curve: Sequence[Mapping[str, float]] = (),
    save_head: Callable[[Path], object] | None = None,
) -> Path:
    """Write a run's folder, whole or not at all, and return it.

    Two processes may write at once. The first to finish takes the place; the second finds the same
    run there and leaves it, or has other settings and goes beside it.

    Args:
        root: Folder of all results.
        run: What to write.
        curve: Rows of the learning curve, one an epoch, all with the same columns.
        save_head: Writes the head to the path it is given; None where a probe has no head.

    Raises:
        InputError: If the run contradicts itself or its settings cannot be fingerprinted.
    """
    check_run(run, "the run to be written")
    parent = Path(root) / run.key.parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".seed{run.key.seed}-", dir=parent))
    try:
        _write_files(temporary, run, curve, save_head)
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders; ours are ordinary ones
        while True:
            place = run_folder(root, run.key, run.fingerprint)
            try:
                temporary.rename(place)  # refused where this run lies, or another came just now
            except OSError:
                if find_finished(root, run.key, run.fingerprint) == place:
                    return place
                if not _is_occupied(place):
                    raise
                continue
            _sync(parent)
            return place
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_files(
    folder: Path,
    run: Run,
    curve: Sequence[Mapping[str, float]],
    save_head: Callable[[Path], object] | None,
) -> None:
    content = {
        "format": FORMAT,
        **asdict(run.key),
        "fingerprint": run.fingerprint,
        "settings": as_plain(run.settings),
        "context": as_plain(run.context),
        "versions": run.versions,
        "classes": list(run.classes),
        "metrics": run.metrics,
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    (folder / METRICS_FILE).write_text(text, encoding="utf-8")
    arrays: dict[str, Any] = {
        "probabilities": np.asarray(run.probabilities, dtype=np.float32),
        "labels": np.asarray(run.labels, dtype=np.int64),
        "names": np.asarray(run.names, dtype=np.str_),
    }
    if run.patients is not None:
        arrays["patients"] = np.asarray(run.patients, dtype=np.str_)
    if run.features is not None:
        arrays["features"] = np.asarray(run.features)
    np.savez_compressed(folder / PREDICTIONS_FILE, **arrays)
    if curve:
        with (folder / CURVE_FILE).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(curve[0]))
            writer.writeheader()
            writer.writerows(curve)
    if save_head is not None:
        save_head(folder / HEAD_FILE)


def _sync(path: Path) -> None:
    """Force a file or folder to the disk, so that a rename never outruns its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
