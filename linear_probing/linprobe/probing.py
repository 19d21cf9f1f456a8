"""A sweep: every data set, share of the training images, and seed that is not there yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from linprobe.config import ProbeConfig
from linprobe.datasets import DataSet, list_data_sets, read_data_set
from linprobe.features import Extractor
from linprobe.fractions import draw_fraction
from linprobe.probes import PROBES, Outcome, save_head
from linprobe.store import FeatureStore
from linprobe.task import ProbingTask, Rows
from linprobe.weights import ProbedModel, load_model
from retfiner.common.classification.evaluation import evaluate
from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError
from retfiner.common.faults import PROBING_MEMORY, explained_faults
from retfiner.common.processes import available_cores
from retfiner.common.results import (
    Run,
    RunKey,
    find_finished,
    fingerprint,
    read_run,
    software_versions,
    write_run,
)
from retfiner.common.seeds import derive_seed
from retfiner.vision import feature_width


@dataclass(frozen=True)
class Summary:
    """The runs of one data set and share of the training images.

    Attributes:
        data_set: Its name.
        fraction: Share of the training images.
        scores: Test balanced accuracy of each seed, NaN where undefined.
        skipped: How many seeds had been finished before.
        seconds: Time spent, features included.
        folder: Where the runs lie.
        notes: What a reader must know.
    """

    data_set: str
    fraction: float
    scores: list[float]
    skipped: int
    seconds: float
    folder: Path
    notes: list[str]


class Sweep:
    """Everything the runs of a command line share.

    Args:
        config: Settings.

    Raises:
        InputError: If the weights cannot be used.
    """

    def __init__(self, config: ProbeConfig) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        self.probed: ProbedModel = load_model(
            config.init_weights,
            config.ft_weights,
            config.backbone,
            config.image_size,
            config.num_heads,
        )
        backbone = self.probed.backbone
        method = config.representation_method
        own = method is None or method == "concat"
        self.method = backbone.spec.representation if own else str(method)
        self.version = config.version or ("refined" if config.ft_weights else "baseline")
        self.model = config.model or backbone.spec.name.replace("/", "_")
        self.extractor = Extractor(
            backbone,
            self.method,
            FeatureStore(config.feature_store),
            device=self.device,
            num_workers=_workers(config.num_workers, self.device),
            batch_size=config.inference_batch_size,
        )

    @property
    def model_path(self) -> str:
        """Where the results lie below their root."""
        return f"{self.version}/{self.model}"

    def settings(self, data: DataSet, fraction: float) -> dict[str, Any]:
        """Give what identifies a run: all that was asked for and changes the result."""
        spec = self.probed.backbone.spec
        return {
            "probe": self.config.probe,
            "backbone": spec.name,
            "representation_method": self.method,
            "image_size": self.probed.backbone.image_size,
            **self.config.probe_settings(spec.name),
            "bootstrap": self.config.bootstrap,
            "train_fraction": fraction,
            "weights_sha256": self.probed.sha256,
            "data_sha256": data.sha256,
        }

    def context(self, data: DataSet, rows: Rows, outcome: Outcome) -> dict[str, Any]:
        """Give what is kept for the record but identifies nothing."""
        return {
            **self.probed.context,
            "data_root": str(self.config.data_root),
            "device": str(self.device),
            "feature_width": feature_width(self.probed.backbone.width, self.method),
            "images": {name: len(split) for name, split in data.splits.items()},
            "images_trained_on": len(rows),
            "notes": data.notes,
            **outcome.context,
        }


@explained_faults(memory=PROBING_MEMORY)
def run_sweep(
    config: ProbeConfig, report: Callable[[Summary], object] = lambda summary: None
) -> tuple[str, list[Summary]]:
    """Probe a model on data sets; finished runs with the same settings are left as they are.

    Args:
        config: Settings.
        report: Called after each data set and share of the training images.

    Returns:
        ``<version>/<model>`` of the results, and what was reported.

    Raises:
        InputError: If weights, data or results cannot be used.
    """
    folders = list_data_sets(config.data_root, config.data_set)
    sweep = Sweep(config)
    summaries = []
    for folder in folders:
        data = read_data_set(folder)
        task = ProbingTask(data, sweep.extractor, config)
        for fraction in config.train_fraction:
            summaries.append(_probe_fraction(sweep, task, fraction))
            report(summaries[-1])
    return sweep.model_path, summaries


def _probe_fraction(sweep: Sweep, task: ProbingTask, fraction: float) -> Summary:
    """Run the seeds that are not finished; write each as soon as all are trained."""
    start = time.perf_counter()
    config, data = sweep.config, task.data
    settings = sweep.settings(data, fraction)
    places = {}
    for seed in config.seed:
        key = RunKey(sweep.version, sweep.model, data.name, seed)
        places[seed] = find_finished(config.results, key, fingerprint(settings))
    train = data.splits["train"]
    subsets = {
        seed: draw_fraction(
            train.labels,
            train.patients,
            fraction,
            np.random.default_rng(derive_seed(seed, "fraction")),
        )
        for seed, place in places.items()
        if place is None
    }
    outcomes = PROBES[config.probe](task, subsets) if subsets else {}
    for seed, outcome in outcomes.items():
        context = sweep.context(data, subsets[seed], outcome)
        run = _make_run(sweep, task, seed, settings, context, outcome)
        places[seed] = _write(config.results, run, outcome, sweep)
    scores = [_score_of(place) for place in places.values() if place is not None]
    return Summary(
        data.name,
        fraction,
        scores,
        len(config.seed) - len(subsets),
        time.perf_counter() - start,
        config.results / sweep.model_path / data.name,
        data.notes,
    )


def _make_run(
    sweep: Sweep,
    task: ProbingTask,
    seed: int,
    settings: dict[str, Any],
    context: dict[str, Any],
    outcome: Outcome,
) -> Run:
    data, test = task.data, task.data.splits["test"]
    metrics = evaluate(
        outcome.probabilities,
        test.labels,
        data.classes,
        generator=np.random.default_rng(derive_seed(seed, "bootstrap")),
        patients=test.patients,
        resamples=sweep.config.bootstrap,
    )
    first = seed == sweep.config.seed[0]  # the features are the same for all
    return Run(
        key=RunKey(sweep.version, sweep.model, data.name, seed),
        settings=settings,
        metrics=metrics,
        classes=data.classes,
        probabilities=outcome.probabilities,
        labels=test.labels,
        names=[f"{path.parent.name}/{path.name}" for path in test.paths],
        patients=_numbered(test.patients),
        features=task.clean("test").numpy().astype(np.float16) if first else None,
        context=context,
        versions=software_versions(),
    )


def _numbered(patients: list[str] | None) -> list[str] | None:
    """Replace patients by numbers: results are passed on, and only who is the same matters."""
    if patients is None:
        return None
    numbers = {patient: str(k) for k, patient in enumerate(sorted(set(patients)))}
    return [numbers[patient] for patient in patients]


def _write(root: Path, run: Run, outcome: Outcome, sweep: Sweep) -> Path:
    about = {
        "classes": run.classes,
        "backbone": sweep.probed.backbone.spec.name,
        "representation_method": sweep.method,
        "image_size": sweep.probed.backbone.image_size,
    }
    head = None if outcome.head is None else save_head(outcome.head, about)
    try:
        return write_run(root, run, curve=outcome.curve, save_head=head)
    except OSError as error:
        raise InputError(
            f"The results of {run.key.data_set}, seed {run.key.seed}, cannot be written to {root}",
            got=error,
            remedy="make room or give another folder with --results, and run the same command "
            "again: what is finished is kept",
        ) from error


def _score_of(place: Path) -> float:
    value = read_run(place, features=False).metrics["values"]["balanced_accuracy"]
    return math.nan if value is None else float(value)


def _workers(requested: int | None, device: torch.device) -> int:
    """Leave most cores to an encoder that runs on them; let a GPU not wait for images."""
    if requested is not None:
        return requested
    cores = available_cores()
    return min(8, max(1, cores // 4) if device.type == "cpu" else cores)
