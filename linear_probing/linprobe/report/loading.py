"""Which predictions a report is about: those of the models asked for, and what is known of them.

Models are compared where data sets, test images and every setting but the weights are the same.
Whatever has no partner is refused by name, never left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from linprobe.units import by_unit
from retfiner.common.errors import InputError, shorten
from retfiner.common.metrics import MAIN_METRIC
from retfiner.common.predictions import TABLE, Amount, find_runs, read_about, read_run, read_table

OF_WEIGHTS_AND_DATA = ("weights", "data", "train_")
MEAN = "Mean"
"""Stands for the mean over data sets, where the name of one stands otherwise."""
SHARED = 0.5
"""Share of a task's images from which on another task is of the same data set."""
OF_BACKBONE = ("backbone", "image_size", "representation_method", "weight_decay")


@dataclass(frozen=True)
class Loaded:
    """Predictions of the models of a report.

    Attributes:
        table: The predictions; the column ``name`` is what the report calls a model, ``amount``
            the words for what its probe was trained on, empty for all training images.
        names: The models, in the order they were asked for.
        pairs: Which of them are compared: base and other.
        runs: What is known about each run of ours, with ``name`` and ``folder``.
        item: What a row is a prediction of: image, volume, eye or patient.
        notes: What there is to say of units, by data set.
        owners: By data set, the first one that has its images: tasks of one data set are several
            columns of its table, and no independent evidence.
    """

    table: pd.DataFrame
    names: list[str]
    pairs: list[tuple[str, str]]
    runs: list[dict[str, Any]]
    item: str = "image"
    notes: dict[str, list[str]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    @property
    def main_amount(self) -> str:
        """What the probes of the main table were trained on: the most."""
        return self.amounts[-1] if self.amounts else ""

    def at(self, data_set: str, amount: str) -> pd.DataFrame:
        """Take the rows of one data set and amount; zero-shot ones, without any, fit all."""
        rows = self.table[self.table["data_set"] == data_set]
        return rows[(rows["amount"] == amount) | (rows["train_images"] == 0)]

    @property
    def data_sets(self) -> list[str]:
        """Data sets of the main table, sorted."""
        main = self.table["amount"] == self.main_amount
        return sorted(set(self.table.loc[main | (self.table["train_images"] == 0), "data_set"]))

    @property
    def amounts(self) -> list[str]:
        """What probes were trained on, rising: images a class, shares, then all of them."""
        trained = self.table[self.table["train_images"] != 0]
        order = trained.assign(share=trained["shots"] == 0)
        order = order[["share", "fraction", "shots", "amount"]].drop_duplicates()
        return list(dict.fromkeys(order.sort_values(["share", "fraction", "shots"])["amount"]))

    def part(self, rows: pd.DataFrame) -> Loaded:
        """Take some of the rows, with the models that they are of."""
        names = list(dict.fromkeys(rows["name"]))
        pairs = [pair for pair in self.pairs if {*pair} <= {*names}]
        return replace(self, table=rows, names=names, pairs=pairs)

    def divided(self) -> tuple[Loaded | None, Loaded | None, dict[str, str]]:
        """Divide into data sets that were trained on, and external ones with what was trained on.

        None stands for a part without rows.
        """
        if "train_set" not in self.table:
            return self, None, {}
        of = self.table["train_set"].fillna("")
        pairs = zip(self.table["data_set"], of, strict=True)
        parts = [
            self.part(self.table[rows]) if rows.any() else None for rows in (of == "", of != "")
        ]
        return parts[0], parts[1], {name: train_set for name, train_set in pairs if train_set}

    def by_kind(self) -> dict[str, Loaded]:
        """Divide by what is predicted: scores of different kinds are not averaged."""
        if "task" not in self.table:
            return {"classes": self}
        of = self.table["task"].replace("", "classes")
        return {kind: self.part(self.table[of == kind]) for kind in MAIN_METRIC if kind in {*of}}

    def by_unit(self, unit: str | None) -> Loaded:
        """Score units instead of images; by default those that a probe pooled, if any did.

        Raises:
            InputError: If probes pooled other units, or units are not known.
        """
        pooled = {str(run["settings"]["unit"]) for run in self.runs if "unit" in run["settings"]}
        unit = unit or min(pooled, default="image")
        if pooled - {unit}:
            raise InputError(
                f"Probes pooled images by {' and by '.join(sorted(pooled))}",
                got=f"--unit {unit}",
                remedy="score them by the unit that they were trained on",
            )
        table, notes = by_unit(self.table, unit)
        return replace(self, table=table, item=unit, notes=notes)


def load(
    results: Path,
    tables: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    alone: Sequence[str] = (),
    data_sets: Sequence[str] = (),
    protocols: Sequence[str] = (),
) -> Loaded:
    """Read the predictions of models and see that they can be compared.

    Args:
        results: Folder of all results; may be absent where tables are given.
        tables: Tables of predictions of other models.
        pairs: Which models are compared: base and other, each a name, or one with ``-`` and the
            beginning of its weights' hash.
        alone: Models that are compared with none.
        data_sets: To keep; all by default.
        protocols: Beginnings of protocols, to choose where a model has runs of several.

    Raises:
        InputError: If a model has no predictions or several could be meant, a run is damaged, a
            data set is missing, or settings differ.
    """
    runs = [read_about(folder) | {"folder": folder} for folder in find_runs(results)]
    known = {run["folder"].resolve() / TABLE for run in runs}
    others = [read_table(path) for path in tables_at(tables) if path.resolve() not in known]
    foreign = (
        pd.concat(others) if others else pd.DataFrame(columns=["model", "weights", "data_set"])
    )
    given = list(dict.fromkeys([*alone, *(name for pair in pairs for name in pair)]))
    keys = {name: _find_model(name, runs, foreign, results) for name in given}
    models = [model for model, _ in keys.values()]
    called = {n: model if models.count(model) == 1 else n for n, (model, _) in keys.items()}
    parts, chosen = [], []
    for word, key in keys.items():
        name = called[word]
        own = [
            run for run in runs
            if _key(run) == key and (not data_sets or run["data_set"] in data_sets)
            and (not protocols or not _protocol(run) or _protocol(run).startswith((*protocols,)))
        ]  # fmt: skip
        chosen += [run | {"name": name} for run in own]
        rows = foreign[(foreign["model"] == key[0]) & (foreign["weights"] == key[1])]
        rows = rows[rows["data_set"].isin(data_sets)] if data_sets else rows
        found = [*(read_run(run["folder"])[0] for run in own), *([rows] if len(rows) else [])]
        if not found:
            raise InputError(
                f"{name} has no such predictions",
                got=f"--data_set {' '.join(data_sets)} --protocol {' '.join(protocols)}",
                expected=shorten(sorted({f"{r['data_set']} {_protocol(r)}" for r in runs
                                         if _key(r) == key})),
            )  # fmt: skip
        parts += [part.assign(name=name) for part in found]
    renamed = [(called[base], called[other]) for base, other in pairs]
    table = pd.concat(parts, ignore_index=True)
    amounts = zip(table["fraction"], table["shots"], strict=True)
    if "task" in table:
        table["task"] = table["task"].fillna("")
    table["amount"] = [str(Amount(*amount)) for amount in amounts]
    names = [called[word] for word in given]
    loaded = Loaded(table, names, renamed, chosen, owners=owners_of(table))
    _check_protocols(loaded)
    _check_once(loaded)
    _check_complete(loaded)
    return loaded


def tables_at(paths: Iterable[Path]) -> list[Path]:
    """List tables of predictions: the files given, and those of the runs below folders given.

    Raises:
        InputError: If a folder holds no run.
    """
    found = []
    for path in paths:
        below = [folder / TABLE for folder in find_runs(path)] if path.is_dir() else [path]
        if not below:
            raise InputError(f"There is no run below {path}", expected=f"folders with {TABLE}")
        found += below
    return found


def owners_of(table: pd.DataFrame) -> dict[str, str]:
    """Find the data sets that are tasks on the same images: for each, the first that has them.

    Those begin with the same word before a ``_`` (OLIVES_acuity, OLIVES_thickness), and share half
    of the smaller one's images or more; names alone, or images called 001.png, do not make them so.
    """
    images = {str(name): set(rows["image"]) for name, rows in table.groupby("data_set")}
    owners: dict[str, str] = {}
    for name, own in images.items():
        alike = (
            owner
            for first, owner in owners.items()
            if name.partition("_")[0] == first.partition("_")[0]
            and len(own & images[first]) >= SHARED * min(len(own), len(images[first]))
        )
        owners[name] = next(alike, name)
    return owners


def _key(run: Mapping[str, Any]) -> tuple[str, str]:
    return run["model"], run["settings"]["weights_sha256"][:16]


def _protocol(run: Mapping[str, Any]) -> str:
    return str(run.get("protocol", ""))


def _find_model(
    name: str, runs: Sequence[dict[str, Any]], foreign: pd.DataFrame, results: Path
) -> tuple[str, str]:
    """Find the one model, by name and weights, that a user means."""
    there = {_key(run) for run in runs}
    there |= set(zip(foreign["model"], foreign["weights"], strict=True))
    model, _, beginning = name.rpartition("-")
    meant = [key for key in there if key[0] == name
             or (beginning and key[0] == model and key[1].startswith(beginning))]  # fmt: skip
    if len(meant) == 1:
        return meant[0]
    told = sorted(f"{model}-{weights[:8]}" if weights else model for model, weights in there)
    raise InputError(
        f"{'Several models are' if meant else 'No predictions of a model'} called {name}",
        got=", ".join(sorted(f"{m}-{w[:8]}" for m, w in meant)) or f"results in {results}",
        expected=f"one of: {shorten(told) or 'none yet'}",
        remedy="name it with its weights" if meant else "run probe.py first, or correct the name",
    )


def _check_protocols(loaded: Loaded) -> None:
    """Refuse probes of a model, or of two that are compared, that differ in more than weights."""
    probes = sorted({run["settings"].get("probe", "") for run in loaded.runs} - {""})
    compared = loaded.pairs or [(name, name) for name in loaded.names]
    for pair, probe in product(compared, probes):
        runs = [run for run in loaded.runs
                if run["name"] in pair and run["settings"].get("probe") == probe]  # fmt: skip
        several = len({run["settings"].get("backbone") for run in runs}) > 1
        own = OF_WEIGHTS_AND_DATA + OF_BACKBONE * several  # each backbone has its own features
        shared = [{k: v for k, v in run["settings"].items() if not k.startswith(own)}
                  for run in runs]  # fmt: skip
        kept = pd.DataFrame(shared, dtype=object).map(repr)
        firsts = kept.drop_duplicates()
        if len(firsts) < 2:
            continue
        differing = firsts.loc[:, firsts.nunique() > 1].replace("nan", "(unset)")
        found = [
            f"{_protocol(runs[k])[:8]} ({runs[k]['name']} on {runs[k]['data_set']}: "
            f"{', '.join(f'{name}={value}' for name, value in row.items())})"
            for k, row in differing.iterrows()
        ]
        raise InputError(
            f"Settings differ: the runs follow {len(found)} protocols.",
            got="; ".join(found),
            expected="the same settings for all models and data sets, but for the weights",
            remedy=f"choose with --protocol, for example --protocol {found[0][:8]}, or probe in "
            "the same way",
        )


def _check_once(loaded: Loaded) -> None:
    """Refuse two predictions of an image by one model and seed: they would count as two images."""
    table = loaded.table
    if MEAN in set(table["data_set"]):
        raise InputError(f"A data set is called {MEAN}, as the line of their mean is",
                         remedy="rename its folder, or choose others with --data_set")  # fmt: skip
    twice = table[table.duplicated(["name", "data_set", "amount", "seed", "image"], keep=False)]
    if twice.empty:
        return
    kinds = twice[["probe", "protocol"]].drop_duplicates()
    told = [f"{row.probe or 'unknown probe'}, protocol {row.protocol[:8] or 'unknown'}"
            for row in kinds.itertuples()]  # fmt: skip
    runs = twice[["name", "data_set", "seed"]].drop_duplicates()
    remedy = "give the predictions of a model in one place, and each table once"
    if len(kinds) > 1 and (kinds["protocol"] != "").all():
        remedy = f"choose with --protocol, for example --protocol {kinds['protocol'].iloc[0][:8]}"
    raise InputError(
        "Images have several predictions of the same model and seed",
        got=f"{len(twice)} of {len(table)} rows: "
        f"{shorten([f'{r.name} on {r.data_set}, seed {r.seed}' for r in runs.itertuples()], 3)}"
        f" ({'; '.join(told)})",
        expected="one of each image, by one probe",
        remedy=remedy,
    )


def _check_complete(loaded: Loaded) -> None:
    """Refuse a model that lacks a data set, or was tested on another version of one."""
    missing = []
    for data_set in loaded.data_sets:
        rows = loaded.at(data_set, loaded.main_amount)
        missing += [f"{n} on {data_set}" for n in loaded.names if n not in set(rows["name"])]
        versions = set(rows["data_version"]) - {""}
        if len(versions) > 1:
            raise InputError(
                f"Models were probed on different versions of {data_set}",
                got=f"{rows.groupby('data_version')['name'].unique().to_dict()}",
                expected="the same images, labels and patients in train, val and test",
                remedy="probe both models on the same data",
            )
    if missing:
        raise InputError(
            "Runs without a partner cannot be compared.",
            got=f"{shorten(missing)} is missing"
            + (f" at {loaded.main_amount}" if loaded.main_amount else ""),
            expected="every data set in all models",
            remedy="run the missing ones, or choose with --data_set",
        )
