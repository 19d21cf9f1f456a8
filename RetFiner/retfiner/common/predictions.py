"""One tidy table of predictions, of which metrics, statistics, tables and figures are functions.

A row is what one model said of one image: who said it (``model``, ``weights``, ``probe``,
``protocol``, ``seed``, ``fraction``, ``shots`` and number of the images and patients it was trained
on), of what (``data_set``, ``data_version``, ``image``, ``eye``, ``volume``, ``patient``, and the
patient's groups), the ``label``, and ``p_<class>``, a probability for each class. Only ``model``,
``data_set``, ``image``, ``label`` and the probabilities have to be there, so that anybody can bring
predictions of another model.

``task`` says what is predicted where that is not one of some classes: ``ordinal`` (grades, whose
classes are numbers), ``multilabel`` (``label`` names all that an image has, with ``|`` between; a
``p_<label>`` each) or ``regression`` (a number each, predicted in ``p_<what it is>``).

A run of ours is a folder ``<results>/<model>-<weights>/<data set>/seed<k>-<fingerprint>/`` with
``predictions.csv`` and ``run.json``: every setting, versions, notes. It is named by what it holds
(the weights' hash, and that of all settings), so that no run ever lands under another's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.common.metrics import MAIN_METRIC
from retfiner.common.patients import GROUPS

TABLE, ABOUT = "predictions.csv", "run.json"
PROBABILITY = "p_"
SEPARATOR = "|"
"""Between the labels of an image that has several."""
_EXPECTED = {
    "regression": "numbers as labels, and one column p_<what is predicted>",
    "ordinal": "whole numbers as classes, and a column p_<number> for each",
    "multilabel": "labels with | between, and a column p_<label> for each",
}
REQUIRED = ("model", "data_set", "image", "label")
_TEXTS = ("weights", "data_version", "probe", "protocol", "eye", "volume", "patient")
_KEPT = ("task", "train_set", *GROUPS)
"""Texts that are only there where they say something: the kind of task, what a probe was trained
on, if that is another data set, and groups of patients."""
_NUMBERS: dict[str, Any] = {
    "seed": 0, "fraction": 1.0, "shots": 0, "train_images": -1, "train_patients": -1,
}  # fmt: skip
"""Numbers that may be left out, and what they are then; -1 stands for unknown, and 0 ``shots``
(training images of each class) for as many as there are."""
IDENTITY = (
    "model", "weights", "data_set", "data_version", "probe", "protocol", "seed", "fraction", "shots"
)  # fmt: skip
"""Columns that are the same for all rows of a run."""


class Amount(NamedTuple):
    """How many training images: a share of them, or (not 0) so many of each class."""

    fraction: float = 1.0
    shots: int = 0

    def __str__(self) -> str:
        """Say it, nothing for all of them."""
        if self.shots:
            return f"{self.shots} training image{'s' * (self.shots > 1)} a class"
        short = f"{self.fraction:.3g}"  # unless another share would be called the same
        told = short if float(short) == self.fraction else repr(float(self.fraction))
        return "" if self.fraction == 1 else f"{told} of the training images"


FORMAT = 2
_VERSIONED = ("retfiner", "torch", "timm", "numpy", "scikit-learn")
_DAMAGED = "delete the folder and run the same command again"


def make_table(
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[int] | NDArray[Any],
    classes: Sequence[str],
    task: str = "",
    **columns: Any,
) -> pd.DataFrame:
    """Lay out predictions, (N, C) probabilities of N images whose classes are ``labels``.

    ``labels`` are (N, C) of 0 and 1 for several an image, and (N,) values for a regression.
    ``columns`` are the others: a value for all rows, or one each. ``image`` is needed.
    """
    if task == "regression":
        told = [repr(float(value)) for value in labels]
    elif task == "multilabel":
        told = [SEPARATOR.join(np.array(classes)[row > 0]) for row in np.asarray(labels)]
    else:
        told = [classes[label] for label in labels]
    table = pd.DataFrame({"label": told}).assign(task=task, **columns)
    scores = pd.DataFrame(np.asarray(probabilities, np.float64), columns=map(_column, classes))
    return _complete(pd.concat([table, scores], axis=1))


def numbered(names: Sequence[str]) -> list[str]:
    """Replace names by numbers: tables are passed on, and only who is the same matters.

    An empty name, of a patient that is not known, stays empty.
    """
    numbers = {name: str(k) for k, name in enumerate(sorted({*names} - {""}))} | {"": ""}
    return [numbers[name] for name in names]


def _column(name: str) -> str:
    return f"{PROBABILITY}{name}"


def classes_of(table: pd.DataFrame) -> list[str]:
    """Name the classes of a table of one data set, in the order of their columns."""
    scores = table[[name for name in table.columns if name.startswith(PROBABILITY)]]
    return [name[len(PROBABILITY) :] for name in scores.columns[scores.notna().any()]]


def task_of(table: pd.DataFrame) -> str:
    """Say which kind of task a table of one data set is about."""
    return str(table["task"].iloc[0] or "classes") if "task" in table else "classes"


def truth_of(table: pd.DataFrame, classes: Sequence[str]) -> NDArray[Any]:
    """Read the labels of a table of one data set: (N,) indices or values, or (N, C) of 0 and 1."""
    if task_of(table) == "regression":
        return table["label"].to_numpy(np.float64)
    if task_of(table) == "multilabel":
        there = [set(label.split(SEPARATOR)) for label in table["label"]]
        return np.array([[int(name in own) for name in classes] for own in there])
    return table["label"].map(list(classes).index).to_numpy(np.int64)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of predictions, our own or somebody else's, and check it.

    Args:
        path: CSV, or Parquet where pyarrow is installed; may hold many models and data sets.

    Raises:
        InputError: If it cannot be read, lacks a column, or says something impossible.
    """
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
        numbers = [name for name in _NUMBERS if name in table]
        table[numbers] = table[numbers].apply(pd.to_numeric)
    except ImportError as error:
        raise InputError(
            f"{path} cannot be read: Parquet needs the package pyarrow",
            remedy="pip install pyarrow, or give the table as a CSV",
        ) from error
    except (OSError, ValueError, OverflowError, MemoryError, Warning) as error:
        raise InputError(f"{path} cannot be read as a table of predictions", got=error) from error
    missing = [name for name in REQUIRED if name not in table]
    if missing or table.empty or not any(name.startswith(PROBABILITY) for name in table):
        raise InputError(
            f"{path} is no table of predictions",
            got=shorten(list(map(str, table.columns))) if len(table) else "no rows",
            expected=f"{', '.join(REQUIRED)}, and p_<class> for each class",
        )
    table = _complete(table)
    for name, part in table.groupby("data_set"):
        _check(part, f"{path}, {name}")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """Read texts as they stand, and numbers to the last bit."""
    names = pd.read_csv(path, nrows=0).columns
    scores = [name for name in names if name.startswith(PROBABILITY)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(names, str) | dict.fromkeys(scores, "float64"),
            keep_default_na=False,
            na_values={name: [""] for name in scores},
            index_col=False,
        )


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that may be left out, and put all in order."""
    for name, value in {**dict.fromkeys(_TEXTS, ""), **_NUMBERS}.items():
        if name not in table:
            table[name] = value
    kept = [name for name in _KEPT if name in table]
    texts = [*REQUIRED, *_TEXTS, *kept]
    table[texts] = table[texts].fillna("").astype(str)
    kept = [name for name in kept if (table[name] != "").any()]
    first = [*IDENTITY, "train_images", "train_patients", "image", "eye", "volume", "patient",
             *kept]  # fmt: skip
    scores = [name for name in table.columns if name.startswith(PROBABILITY)]
    return table[[*first, "label", *scores]]


def _check(table: pd.DataFrame, where: str) -> None:
    """Refuse the rows of one data set that cannot be scored."""
    classes, task = classes_of(table), task_of(table)
    value, several = task == "regression", task == "multilabel"
    scores = table[list(map(_column, classes))].to_numpy(np.float64)
    labels = table["label"].str.split(SEPARATOR).explode() if several else table["label"]
    unknown = sorted(set(labels) - {*classes, *[""] * several})
    if value:
        unknown = [one for one in unknown if not np.isfinite(pd.to_numeric(one, errors="coerce"))]
    unknown += [name for name in classes if task == "ordinal" and not name.isdecimal()]
    fits = len(classes) == 1 if value else len(classes) > (0 if several else 1)
    if unknown or not fits or task not in MAIN_METRIC:
        raise InputError(
            f"{where}: labels and probabilities do not fit together",
            got=f"labels {shorten(unknown)}, " * bool(unknown) + f"columns for {shorten(classes)}",
            expected=_EXPECTED.get(task, "a column p_<class> for each of two or more classes"),
        )
    right = np.isfinite(scores) & (value | (scores >= 0) & (scores <= 1 + 1e-3))
    if not (value or several):
        right &= abs(scores.sum(axis=1, keepdims=True) - 1) <= 1e-3
    if not right.all():
        row = table.loc[~right.all(axis=1)].iloc[0]
        told = ", ".join(f"{_column(name)} {row[_column(name)]:.6g}" for name in classes[:8])
        raise InputError(
            f"{where}: the predictions are not probabilities",
            got=f"of image {row['image']}, {row['model']}: {told}",
            expected="finite values from 0 to 1 whose rows sum to 1",
            remedy="apply a softmax; values that are not finite mean that training diverged",
        )
    twice = table[table.duplicated([*IDENTITY, "image"])]
    if len(twice):
        raise InputError(
            f"{where}: images stand there twice with the same model, seed and fraction",
            got=shorten(sorted(set(twice["image"]))),
            expected="a row each",
        )


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash settings: SHA-256, in hexadecimal, of their JSON with sorted keys.

    Order of keys does not matter, nor whether a whole number is written 1 or 1.0.

    Raises:
        InputError: If a value cannot be written as JSON.
    """
    try:
        text = json.dumps(_canonical(as_plain(dict(settings))), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError("A setting cannot be fingerprinted.", got=error) from error
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def model_folder(root: Path, model: str, weights: str) -> Path:
    """Say where the runs of a model lie: its name and the first digits of its weights' hash.

    Raises:
        InputError: If the name cannot be a folder's.
    """
    parts = model.split("/")
    if any(not part or part.startswith(".") or os.sep in part for part in parts):
        raise InputError(
            "A model's name cannot be a folder's.",
            got=repr(model),
            expected="names joined by /, none of which is empty or begins with a dot",
        )
    return root / f"{model}-{weights[:8]}"


def run_folder(
    root: Path, model: str, data_set: str, seed: int, settings: Mapping[str, Any]
) -> Path:
    """Say where a run lies or will lie; its ``settings`` hold ``weights_sha256``."""
    place = model_folder(root, model, str(settings["weights_sha256"]))
    return place / data_set / f"seed{seed}-{fingerprint(settings)[:8]}"


def write_run(
    root: Path,
    table: pd.DataFrame,
    about: Mapping[str, Any],
    files: Mapping[str, Callable[[Path], object]] | None = None,
) -> Path:
    """Write a run's folder, whole or not at all, and return it.

    Two processes may write the same run at once: the second finds it there and leaves it.

    Args:
        root: Folder of all results.
        table: The predictions of one model, data set, seed and fraction.
        about: ``settings`` (all that was asked for and changes the result, among them
            ``weights_sha256``), and what is kept for the record: ``context``, ``notes``.
        files: Writes other files of the run, by their names.

    Raises:
        InputError: If a setting or the model's name cannot be used.
    """
    first = table.iloc[0]
    key = (str(first["model"]), str(first["data_set"]), int(first["seed"]))
    place = run_folder(root, *key, about["settings"])
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        table.to_csv(temporary / TABLE, index=False)
        content = {
            "format": FORMAT,
            "model": first["model"],
            "data_set": first["data_set"],
            "seed": key[2],
            "protocol": first["protocol"],
            "fingerprint": fingerprint(about["settings"]),
            **as_plain(dict(about)),
            "versions": {name: metadata.version(name) for name in _VERSIONED},
            "predictions_sha256": file_sha256(temporary / TABLE),
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        (temporary / ABOUT).write_text(text, encoding="utf-8")
        for name, write in (files or {}).items():
            write(temporary / name)
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders; ours are ordinary ones
        try:
            temporary.rename(place)
        except OSError:
            read_about(place)  # the same run came first, unless this says otherwise
        return place
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Force a file or folder to the disk, so that a rename never outruns its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_about(folder: Path) -> dict[str, Any]:
    """Read ``run.json`` and hold its fingerprint against its settings.

    Raises:
        InputError: If the file is missing, damaged or was changed by hand.
    """
    path = folder / ABOUT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"A run cannot be read: {path}", got=error, remedy=_DAMAGED) from error
    kinds = {
        "model": str,
        "data_set": str,
        "seed": int,
        "fingerprint": str,
        "settings": dict,
        "predictions_sha256": str,
        "context": dict,
        "notes": list,
        "versions": dict,
    }
    whole = isinstance(content, dict) and content.get("format") == FORMAT
    if not whole or any(not isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise InputError(
            f"A run is not complete: {path}",
            expected=f"format {FORMAT} with {', '.join(kinds)}",
            remedy=_DAMAGED,
        )
    if fingerprint(content["settings"]) != content["fingerprint"]:
        raise InputError(
            f"A run's settings were changed after it was written: {path}",
            got=f"settings with fingerprint {fingerprint(content['settings'])}",
            expected=content["fingerprint"],
            remedy=_DAMAGED,
        )
    return content


def read_run(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a run's predictions and what is known about it.

    Raises:
        InputError: If a file is missing, damaged or was changed; it is named.
    """
    about, path = read_about(folder), folder / TABLE
    if not path.is_file() or file_sha256(path) != about["predictions_sha256"]:
        raise InputError(
            f"A run's predictions are missing or were changed after it was written: {path}",
            remedy=_DAMAGED,
        )
    return read_table(path), about


def find_runs(root: Path) -> list[Path]:
    """List the folders of finished runs below a folder; hidden ones were cut off."""
    found = (path.parent for path in root.rglob(ABOUT))
    return sorted(p for p in found if not any(n.startswith(".") for n in p.relative_to(root).parts))
