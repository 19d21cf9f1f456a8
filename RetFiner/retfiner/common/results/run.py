"""What a run is, what identifies it, and how its metrics are called."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError

_VERSIONED = ("retfiner", "torch", "timm", "numpy", "scikit-learn")


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown: its name, its factor (100 for a share), and which way is better."""

    label: str
    scale: float
    higher_is_better: bool


METRIC_INFO = {
    "loss": MetricInfo("Cross-entropy", 1.0, higher_is_better=False),
    "balanced_accuracy": MetricInfo("Balanced accuracy", 100.0, higher_is_better=True),
    "auroc": MetricInfo("AUROC", 100.0, higher_is_better=True),
    "average_precision": MetricInfo("Average precision", 100.0, higher_is_better=True),
    "f1": MetricInfo("F1", 100.0, higher_is_better=True),
    "mcc": MetricInfo("MCC", 100.0, higher_is_better=True),
    "ece": MetricInfo("Expected calibration error", 100.0, higher_is_better=False),
}


@dataclass(frozen=True)
class RunKey:
    """Where a run belongs: one model of one version, on one data set, with one seed."""

    version: str
    model: str
    data_set: str
    seed: int

    def __post_init__(self) -> None:
        for name in (self.version, self.model, self.data_set):
            if not name or name.startswith(".") or "/" in name or os.sep in name:
                raise InputError(
                    "A version, model or data set cannot be a folder's name.",
                    got=repr(name),
                    expected="a name without slashes that does not start with a dot",
                )

    @property
    def parent(self) -> Path:
        """Folder, below the results, that holds the seeds."""
        return Path(self.version, self.model, self.data_set)


@dataclass(frozen=True)
class Run:
    """One probing run on one test split.

    Attributes:
        key: Where it belongs.
        settings: What identifies it; see the text of :mod:`retfiner.common.results`.
        metrics: What :func:`retfiner.common.classification.evaluation.evaluate` returned.
        classes: C names, in the order of the columns.
        probabilities: (N, C) on the test images.
        labels: (N,) indices into ``classes``.
        names: (N,) names of the test images.
        patients: (N,) their patients, or None where the names carry none.
        features: (N, F) frozen features of the test images, for the map; None to leave it out. The
            same for every seed, so that one seed carrying them is enough.
        context: Other settings, kept for the record (paths, device, derived values).
        versions: Software versions.
        folder: Where it was read from.
    """

    key: RunKey
    settings: dict[str, Any]
    metrics: dict[str, Any]
    classes: list[str]
    probabilities: NDArray[np.floating[Any]]
    labels: NDArray[np.integer[Any]]
    names: list[str]
    patients: list[str] | None = None
    features: NDArray[np.floating[Any]] | None = None
    context: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the settings."""
        return fingerprint(self.settings)

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings that all runs of a comparison share: neither weights nor data."""
        others = ("weights", "data", "train_fraction")
        return {name: value for name, value in self.settings.items() if not name.startswith(others)}

    @property
    def train_fraction(self) -> float:
        """Share of the training images that was used."""
        return float(self.settings.get("train_fraction", 1.0))


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


def comparable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Take the settings that two models must share to be compared: all but the weights."""
    return {name: value for name, value in settings.items() if not name.startswith("weights")}


def software_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a result."""
    return {name: metadata.version(name) for name in _VERSIONED}


def check_run(run: Run, where: str) -> None:
    """Refuse a run whose parts do not fit together; ``where`` is its name in the message.

    Raises:
        InputError: If numbers of images or classes differ between its parts.
    """
    n, n_classes = len(run.names), len(run.classes)
    shapes = {"probabilities": run.probabilities.shape, "labels": run.labels.shape}
    fits = shapes == {"probabilities": (n, n_classes), "labels": (n,)} and n > 0
    fits = fits and bool(((run.labels >= 0) & (run.labels < n_classes)).all())
    fits = fits and (run.patients is None or len(run.patients) == n)
    if run.features is not None:
        fits = fits and run.features.ndim == 2 and len(run.features) == n
    if not fits or not isinstance(run.metrics.get("values"), dict):
        raise InputError(
            f"Parts of a run contradict one another: {where}",
            got=f"{n} names, {n_classes} classes, {shapes}",
            expected="metrics with values, and one row for each test image in every array",
        )
