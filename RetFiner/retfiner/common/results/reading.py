"""Read runs back, and name the file where one is damaged."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from retfiner.common.errors import InputError
from retfiner.common.results.run import Run, RunKey, check_run, fingerprint

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.npz"
FORMAT = 1

MAX_RATIO, MAX_SMALL = 200, 2**28
"""Predictions of more bytes than the latter that were packed tighter than the former are a bomb."""

_ARRAYS = {
    "probabilities": ("f", 2),
    "labels": ("iu", 1),
    "names": ("U", 1),
    "patients": ("U", 1),
    "features": ("f", 2),
}
"""Kinds of values (numpy's letters) and number of axes of each array."""

_SEED_FOLDER = re.compile(r"seed(\d+)(-[0-9a-f]+)?")
_REMEDY_DAMAGED = "delete the folder and run the probe again"


def read_metrics_file(folder: Path) -> dict[str, Any]:
    """Read ``metrics.json`` and hold its fingerprint against its settings.

    Raises:
        InputError: If the file is missing, damaged or was changed by hand.
    """
    path = folder / METRICS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"A run's metrics cannot be read: {path}", got=error, remedy=_REMEDY_DAMAGED
        ) from error
    needed = {"format": int, "seed": int, "fingerprint": str, "settings": dict, "classes": list}
    needed |= {"metrics": dict}
    if (
        not isinstance(content, dict)
        or any(not isinstance(content.get(name), kind) for name, kind in needed.items())
        or any(not isinstance(content.get(name, {}), dict) for name in ("context", "versions"))
        or any(not isinstance(name, str) for name in content["classes"])
        or content["format"] != FORMAT
    ):
        raise InputError(
            f"A run's metrics are not complete: {path}",
            expected=f"format {FORMAT} with {', '.join(sorted(needed))}",
            remedy=_REMEDY_DAMAGED,
        )
    if fingerprint(content["settings"]) != content["fingerprint"]:
        raise InputError(
            f"A run's settings were changed after it was written: {path}",
            got=f"settings with fingerprint {fingerprint(content['settings'])}",
            expected=content["fingerprint"],
            remedy=_REMEDY_DAMAGED,
        )
    return content


def read_run(folder: Path | str, *, features: bool = True) -> Run:
    """Read one run, with its features unless told otherwise: they can be large.

    Raises:
        InputError: If a file is missing or damaged; it is named.
    """
    folder = Path(folder)
    content = read_metrics_file(folder)
    arrays = _read_arrays(folder / PREDICTIONS_FILE, features)
    named = _SEED_FOLDER.fullmatch(folder.name)
    if named is None or int(named[1]) != content["seed"]:
        raise InputError(
            f"A run lies in the folder of another seed: {folder}",
            got=f"seed {content['seed']}",
            remedy="rename the folder back",
        )
    version, model, data_set = folder.absolute().parts[-4:-1]
    run = Run(
        key=RunKey(version, model, data_set, int(content["seed"])),
        settings=content["settings"],
        metrics=content["metrics"],
        classes=list(content["classes"]),
        probabilities=arrays["probabilities"],
        labels=arrays["labels"],
        names=arrays["names"].tolist(),
        patients=arrays["patients"].tolist() if "patients" in arrays else None,
        features=arrays.get("features"),
        context=content.get("context", {}),
        versions=content.get("versions", {}),
        folder=folder,
    )
    check_run(run, str(folder))
    return run


def _read_arrays(path: Path, features: bool) -> dict[str, Any]:
    """Read the arrays of a run; one that says it is larger than its file may be is an error."""
    try:
        with zipfile.ZipFile(path) as archive:
            size, packed = sum(i.file_size for i in archive.infolist()), path.stat().st_size
        if size > max(MAX_SMALL, MAX_RATIO * packed):
            raise ValueError(f"{size:,} bytes unpacked of {packed:,}")
        with np.load(path, allow_pickle=False) as stored:
            wanted = [name for name in stored.files if features or name != "features"]
            arrays = {name: stored[name] for name in wanted}
        for name, values in arrays.items():
            kinds, axes = _ARRAYS.get(name, (values.dtype.kind, values.ndim))
            if values.dtype.kind not in kinds or values.ndim != axes:
                raise ValueError(f"{name} of type {values.dtype}, {values.ndim} axes")
        absent = [name for name in ("probabilities", "labels", "names") if name not in arrays]
        if absent:
            raise ValueError(f"no {', '.join(absent)}")
    except Exception as error:  # numpy and zipfile have a dozen kinds for a damaged file
        got = str(error) or type(error).__name__
        raise InputError(
            f"A run's predictions cannot be read: {path}", got=got, remedy=_REMEDY_DAMAGED
        ) from error
    return arrays


def model_folder(root: Path | str, model_path: str) -> Path:
    """Return the folder of a model's results, below ``root`` at ``<version>/<model>``.

    Raises:
        InputError: If there is no such model.
    """
    base = Path(root) / model_path
    if len(Path(model_path).parts) != 2 or not base.is_dir():
        seeds = Path(root).glob("*/*/*/seed*")
        known = sorted({path.relative_to(root).parents[1].as_posix() for path in seeds})
        raise InputError(
            f"No results of {model_path} below {root}.",
            expected=f"<version>/<model>, one of: {', '.join(known) or 'none yet'}",
            remedy="run probe.py first, or correct the name",
        )
    return base


def read_runs(root: Path | str, model_path: str, *, features: bool = False) -> list[Run]:
    """Read all finished runs of one model, sorted by data set and folder.

    Hidden folders (of runs that were cut off) and folders of other names are left aside.

    Raises:
        InputError: If there is no such model or no run of it, or a run is damaged.
    """
    base = model_folder(root, model_path)
    folders = sorted(
        folder
        for folder in base.glob("*/seed*")
        if folder.is_dir()
        and _SEED_FOLDER.fullmatch(folder.name)
        and not folder.parent.name.startswith(".")
    )
    if not folders:
        raise InputError(f"No finished run in {base}.", remedy="run probe.py first")
    return [read_run(folder, features=features) for folder in folders]
