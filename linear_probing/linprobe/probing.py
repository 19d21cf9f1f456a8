"""A sweep: every model, data set, share of the training images, and seed that is not there yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from linprobe.config import ProbeConfig
from linprobe.datasets import SPLITS, DataSet, Split, list_data_sets, read_data_set
from linprobe.external import check_label_map, external
from linprobe.features import Extractor, reading_processes
from linprobe.fractions import draw_fraction, draw_shots
from linprobe.leaks import TrainingPairs, check_splits, refuse
from linprobe.probes import OF_ANY_TASK, PROBES, RANDOM
from linprobe.store import FeatureStore
from linprobe.targets import read_tasks
from linprobe.task import Outcome, ProbingTask, Rows
from linprobe.units import by_unit
from linprobe.weights import Candidate, candidates, load_model
from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError
from retfiner.common.faults import PROBING_MEMORY, explained_faults
from retfiner.common.files import save_torch
from retfiner.common.metrics import MAIN_METRIC, chance, compute_metric
from retfiner.common.patients import GROUPS
from retfiner.common.predictions import (
    Amount,
    classes_of,
    fingerprint,
    make_table,
    numbered,
    read_run,
    run_folder,
    task_of,
    truth_of,
    write_run,
)
from retfiner.common.seeds import derive_seed
from retfiner.vision import PATCH_TOKENS

IDENTIFYING = ("weights", "data", "train_")
"""Beginnings of the settings that are no part of the protocol."""


@dataclass(frozen=True)
class Summary:
    """The runs of one model on one data set with one share of the training images.

    ``protocol`` is the fingerprint of the settings that all runs of a comparison share; ``scores``
    are of each run, NaN where undefined; ``skipped`` runs had been finished before.
    """

    model: str
    data_set: str
    protocol: str
    amount: Amount
    metric: str
    scores: list[float]
    chance: float
    skipped: int
    seconds: float
    notes: list[str]


class Run(NamedTuple):
    """One seed: the training images it was given, and what it came to."""

    seed: int
    amount: Amount
    rows: Rows
    outcome: Outcome


class Sweep:
    """Everything the runs of one model share.

    Raises:
        InputError: If the weights cannot be used.
    """

    def __init__(self, config: ProbeConfig, candidate: Candidate) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        asked = (config.backbone, config.image_size, config.num_heads)
        self.probed = load_model(candidate.base, candidate.refined, *asked)
        backbone = self.probed.backbone
        method = config.representation_method
        own = method is None or method == "concat"
        self.method = backbone.spec.representation if own else str(method)
        if config.probe == "attentive":
            self.method = PATCH_TOKENS
        version = config.version or ("refined" if config.ft_weights else "baseline")
        usual = f"{version}/{config.model or backbone.spec.name.replace('/', '_')}"
        self.model = candidate.name or usual
        self.store = FeatureStore(config.feature_store)
        self.extractor = Extractor(
            backbone,
            self.method,
            self.store,
            device=self.device,
            num_workers=reading_processes(config.num_workers, self.device),
            batch_size=config.inference_batch_size,
        )

    def settings(self, data: DataSet, amount: Amount) -> dict[str, Any]:
        """Give what identifies a run: all that was asked for and changes the result."""
        spec = self.probed.backbone.spec
        return {
            "probe": self.config.probe,
            "backbone": spec.name,
            "representation_method": self.method,
            "image_size": self.probed.backbone.image_size,
            **self.config.probe_settings(spec.name),
            **({} if data.task == "classes" else {"data_task": data.task}),
            "train_fraction": amount.fraction,
            **({"train_shots": amount.shots} if amount.shots else {}),
            "weights_sha256": self.probed.sha256,
            "data_sha256": data.sha256,
        }

    def context(self, data: DataSet, run: Run) -> dict[str, Any]:
        """Give what is kept for the record but identifies nothing."""
        return {
            **self.probed.context,
            "notes_on_weights": self.probed.notes,
            "data_root": str(self.config.data_root),
            "device": str(self.device),
            "feature_width": self.extractor.feature_width,
            "images": {name: len(split) for name, split in data.splits.items()},
            "images_trained_on": len(run.rows),
            **run.outcome.context,
        }


@explained_faults(memory=PROBING_MEMORY)
def run_sweep(
    config: ProbeConfig, report: Callable[[Summary], object] = lambda summary: None
) -> tuple[list[str], list[Summary]]:
    """Probe models on data sets; finished runs with the same settings are left as they are.

    ``report`` is called after each data set and amount of training images.

    Returns:
        For each model ``<name>-<beginning of the weights' hash>``, as the report finds it; and
        what was reported.

    Raises:
        InputError: If weights, data or results cannot be used, or test images were trained on.
    """
    folders = list_data_sets(config.data_root, config.data_set, config.external)
    others = [read_data_set(config.data_root / name, ("test",)) for name in config.external]
    check_label_map(config.classes_of_external, others)
    store = FeatureStore(config.feature_store)
    pairs = None if config.train_csv is None else TrainingPairs(config.train_csv, store)
    models, summaries = [], []
    data_sets: list[list[DataSet]] = []
    for candidate in candidates(config):
        sweep = Sweep(config, candidate)
        models.append(f"{sweep.model}-{sweep.probed.sha256[:8]}")
        for k, folder in enumerate(folders):
            if k == len(data_sets):  # read and compared once, when its turn comes
                found = _data_sets(folder, others, config)
                data_sets.append([])
                for one in found:
                    leaks = check_splits(one, store)
                    leaks += [] if pairs is None else pairs.leaks(one, store)
                    told = refuse(one, leaks, config.allow_leaks)
                    data_sets[k].append(replace(one, notes=[*one.notes, *told]))
            for data in data_sets[k]:
                task = ProbingTask(data, sweep.extractor, config)
                for amount in config.amounts:
                    summaries.append(_probe_amount(sweep, task, amount))
                    report(summaries[-1])
    return models, summaries


def _data_sets(folder: Path, others: list[DataSet], config: ProbeConfig) -> list[DataSet]:
    """Read what is trained on in a folder: tested on its own images, if it has any, and others'."""
    alone = bool(others) and not (folder / "test").is_dir()
    own = _fit_for_probe(config, read_tasks(folder, ("train", "val") if alone else SPLITS))
    of_classes = [one for one in own if one.task == "classes"]
    if others and not of_classes:
        raise InputError(f"{folder.name} has no classes, which alone are validated elsewhere",
                         remedy="choose another --data_set, or leave --external out")  # fmt: skip
    label_map = config.classes_of_external
    outside = [external(one, other, label_map) for one in of_classes for other in others]
    return outside if alone else [*own, *outside]


def _probe_amount(sweep: Sweep, task: ProbingTask, amount: Amount) -> Summary:
    """Run the seeds that are not finished; write each as soon as all are trained."""
    start = time.perf_counter()
    config, data = sweep.config, task.data
    settings = sweep.settings(data, amount)
    # Where neither the probe nor the choice of images is random, all seeds are one run.
    seeds = config.seeds if config.probe in RANDOM or str(amount) else config.seeds[:1]
    place = partial(run_folder, config.results, sweep.model, data.name, settings=settings)
    finished = [seed for seed in seeds if place(seed).is_dir()]
    train = data.splits["train"]
    subsets = {seed: _draw(train, amount, seed) for seed in seeds if seed not in finished}
    outcomes = PROBES[config.probe](task, subsets) if subsets else {}
    for seed, outcome in outcomes.items():
        _write(sweep, task, settings, Run(seed, amount, subsets[seed], outcome))
    metric, truth = MAIN_METRIC[data.task], data.splits["test"].labels
    guessed = chance(truth, len(data.classes), data.task)[metric]
    tables, notes = [read_run(place(seed))[0] for seed in seeds], data.notes
    try:
        tables = [by_unit(table, config.unit)[0] for table in tables]
    except InputError as error:
        if data.task == "classes":
            raise
        notes = [*notes, f"{error.problem}: scored by image."]
    return Summary(
        sweep.model,
        data.name,
        _protocol(settings),
        amount,
        metric,
        [_score(table, metric) for table in tables],
        math.nan if guessed is None else guessed,
        len(finished),
        time.perf_counter() - start,
        notes,
    )


def _fit_for_probe(config: ProbeConfig, tasks: list[DataSet]) -> list[DataSet]:
    """Leave out tasks without classes where the probe knows classes alone, and say so.

    Raises:
        InputError: If no task is left.
    """
    flags = {f"--probe {config.probe}": config.probe not in OF_ANY_TASK,
             "--shots": bool(config.shots)}  # fmt: skip
    of_classes = [one for one in tasks if one.is_of_classes]
    left = ", ".join(one.name for one in tasks if not one.is_of_classes)
    asked = " and ".join(flag for flag, used in flags.items() if used)
    if not asked or not left:
        return tasks
    if not of_classes:
        raise InputError(f"Only tasks of classes go with {asked}",
                         got=f"{left}: several labels an image, or values",
                         expected=f"--probe {', '.join(OF_ANY_TASK)}, without --shots")  # fmt: skip
    note = f"{left} left out: only tasks of classes go with {asked}."
    return [replace(of_classes[0], notes=[*of_classes[0].notes, note]), *of_classes[1:]]


def _draw(train: Split, amount: Amount, seed: int) -> Rows:
    generator = np.random.default_rng(derive_seed(seed, "fraction"))
    if amount.shots:
        return draw_shots(train.labels, train.units, amount.shots, generator)
    of_classes = train.labels.ndim == 1 and train.labels.dtype.kind == "i"
    labels = train.labels if of_classes else np.zeros(len(train), np.int64)
    return draw_fraction(labels, train.units, amount.fraction, generator)


def _protocol(settings: dict[str, Any]) -> str:
    shared = {k: v for k, v in settings.items() if not k.startswith(IDENTIFYING)}
    return fingerprint(shared)[:16]


def _table(sweep: Sweep, task: ProbingTask, protocol: str, run: Run) -> pd.DataFrame:
    data, test, train = task.data, task.data.splits["test"], task.data.splits["train"]
    owners = [train.owners[row].patient for row in run.rows]
    mean, spread = task.scale if data.task == "regression" else (0.0, 1.0)
    return make_table(
        mean + spread * run.outcome.probabilities,
        test.labels,
        data.classes,
        task="" if data.task == "classes" else data.task,
        model=sweep.model,
        weights=sweep.probed.sha256[:16],
        data_set=data.name,
        data_version=data.sha256[:16],
        probe=sweep.config.probe,
        protocol=protocol,
        seed=run.seed,
        fraction=run.amount.fraction,
        shots=run.amount.shots,
        train_images=len(run.rows),
        train_patients=len(set(owners)) if all(owners) else -1,
        train_set=data.train_set,
        image=test.names,
        eye=[owner.eye for owner in test.owners],
        volume=numbered([owner.volume for owner in test.owners]),
        patient=numbered([owner.patient for owner in test.owners]),
        **{name: [getattr(owner, name) for owner in test.owners] for name in GROUPS},
    )


def _write(sweep: Sweep, task: ProbingTask, settings: dict[str, Any], run: Run) -> None:
    """Write a run: its predictions, all about it, the learning curve, the head."""
    data, root = task.data, sweep.config.results
    context = sweep.context(data, run)
    about = {"settings": settings, "context": context, "notes": data.notes}
    files: dict[str, Callable[[Path], object]] = {}
    if run.outcome.curve:
        files["learning_curve.csv"] = partial(pd.DataFrame(run.outcome.curve).to_csv, index=False)
    if run.outcome.head is not None:
        head = {
            **run.outcome.head,
            "classes": data.classes,
            "backbone": sweep.probed.backbone.spec.name,
            "representation_method": sweep.method,
            "image_size": sweep.probed.backbone.image_size,
        }
        files["head.pth"] = partial(save_torch, head)
    table = _table(sweep, task, _protocol(settings), run)
    try:
        write_run(root, table, about, files)
    except OSError as error:
        raise InputError(
            f"The results of {data.name}, seed {run.seed}, cannot be written to {root}",
            got=error,
            remedy="make room or give another folder with --results, and run the same command "
            "again: what is finished is kept",
        ) from error


def _score(table: pd.DataFrame, metric: str) -> float:
    classes = classes_of(table)
    scores = table[[f"p_{name}" for name in classes]].to_numpy()
    return compute_metric(metric, scores, truth_of(table, classes), task_of(table))
