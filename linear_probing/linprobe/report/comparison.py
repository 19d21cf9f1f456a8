"""Pairing: which run of the refined model belongs to which run of the base model.

Two runs may be compared when they share data set, seed, share of the training images and every
setting but the weights. Whatever has no partner is refused by name, never left out in silence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retfiner.common.errors import InputError, shorten
from retfiner.common.results import Run, comparable_settings, fingerprint, read_runs

Place = tuple[str, int]
"""Data set and seed."""


@dataclass(frozen=True)
class Pair:
    """A base model and the model refined from it.

    Attributes:
        name: How tables call the pair.
        base: ``<version>/<model>`` of the base model.
        refined: ``<version>/<model>`` of the refined model.
        runs: For each share of the training images, for each data set and seed, both runs.
    """

    name: str
    base: str
    refined: str
    runs: dict[float, dict[Place, tuple[Run, Run]]]

    @property
    def main_fraction(self) -> float:
        """Share of the training images that the main table shows: the largest."""
        return max(self.runs)

    @property
    def main(self) -> dict[Place, tuple[Run, Run]]:
        """The runs of the main table."""
        return self.runs[self.main_fraction]

    @property
    def data_sets(self) -> list[str]:
        """Data sets of the main table, sorted."""
        return sorted({data_set for data_set, _ in self.main})

    def seeds(self, data_set: str) -> list[int]:
        """Seeds of the main table for one data set, sorted."""
        return sorted(seed for name, seed in self.main if name == data_set)


def load_pairs(
    root: Path | str,
    base: Sequence[str],
    refined: Sequence[str],
    fingerprints: Sequence[str] = (),
) -> list[Pair]:
    """Read the runs of each pair of models and pair them.

    Args:
        root: Folder of all results.
        base: ``<version>/<model>`` of the base models.
        refined: ``<version>/<model>`` of the refined models, in the same order.
        fingerprints: Beginnings of run or protocol fingerprints, to choose where a model has runs
            of several protocols. Empty keeps all.

    Raises:
        InputError: If the lists differ in length, a run is damaged or has no partner, or settings
            differ.
    """
    if len(base) != len(refined):
        raise InputError(
            "Base and refined models do not pair up.",
            got=f"{len(base)} base ({', '.join(base)}), {len(refined)} refined "
            f"({', '.join(refined)})",
            expected="as many after --refined as after --base, in the same order",
        )
    names = _pair_names(base, refined)
    return [
        Pair(name, b, r, pair_runs(_load(root, b, fingerprints), _load(root, r, fingerprints)))
        for name, b, r in zip(names, base, refined, strict=True)
    ]


def _pair_names(base: Sequence[str], refined: Sequence[str]) -> list[str]:
    """Call a pair by its model; by all that tells it apart where that is not enough."""
    models = [
        (b.rsplit("/", 1)[-1], r.rsplit("/", 1)[-1]) for b, r in zip(base, refined, strict=True)
    ]
    names = [b if b == r else f"{b} to {r}" for b, r in models]
    if len(set(names)) == len(names):
        return names
    return [f"{b} to {r}" for b, r in zip(base, refined, strict=True)]


def _load(root: Path | str, model: str, fingerprints: Sequence[str]) -> list[Run]:
    """Read a model's runs, keep the chosen ones, and see that they share one protocol."""
    runs = read_runs(root, model)
    protocols = {id(run): fingerprint(run.protocol) for run in runs}
    if fingerprints:
        chosen = tuple(fingerprints)
        runs = [
            run
            for run in runs
            if run.fingerprint.startswith(chosen) or protocols[id(run)].startswith(chosen)
        ]
        if not runs:
            raise InputError(
                f"No run of {model} has such a fingerprint.",
                got=", ".join(fingerprints),
                expected=f"the beginning of one of: {', '.join(sorted(set(protocols.values())))}",
            )
    by_protocol: dict[str, Run] = {}
    for run in runs:
        by_protocol.setdefault(protocols[id(run)], run)
    if len(by_protocol) > 1:
        found = [
            f"{name[:12]} ({_differences([run.protocol for run in by_protocol.values()], index)})"
            for index, (name, run) in enumerate(by_protocol.items())
        ]
        raise InputError(
            f"The runs of {model} follow {len(by_protocol)} protocols.",
            got="; ".join(found),
            expected="one protocol in a report",
            remedy=f"choose one with --fingerprint, for example --fingerprint {found[0][:12]}",
        )
    return runs


def _differences(settings: Sequence[Mapping[str, Any]], index: int) -> str:
    """Name, for one of several settings, the values that not all of them share."""
    names = sorted({name for item in settings for name in item})
    missing = "(unset)"
    differing = [
        name for name in names if len({repr(item.get(name, missing)) for item in settings}) > 1
    ]
    return ", ".join(f"{name}={settings[index].get(name, missing)}" for name in differing)


def pair_runs(
    base: Sequence[Run], refined: Sequence[Run]
) -> dict[float, dict[Place, tuple[Run, Run]]]:
    """Pair the runs of two models by share of the training images, data set and seed.

    Args:
        base: Runs of the base model.
        refined: Runs of the refined model.

    Returns:
        For each share, for each data set and seed, both runs.

    Raises:
        InputError: If a run has no partner or several, or partners differ in settings or test
            images.
    """
    left, right = _by_place(base), _by_place(refined)
    unpaired = [_describe(left[place]) for place in sorted(left.keys() - right.keys())]
    unpaired += [_describe(right[place]) for place in sorted(right.keys() - left.keys())]
    if unpaired:
        raise InputError(
            "Runs without a partner cannot be compared.",
            got=shorten(unpaired),
            expected="every data set, seed and share of the training images in both models",
            remedy="run the missing ones, or move these out of the results",
        )
    paired: dict[float, dict[Place, tuple[Run, Run]]] = defaultdict(dict)
    for place in sorted(left):
        fraction, data_set, seed = place
        check_comparable(left[place], right[place])
        paired[fraction][(data_set, seed)] = (left[place], right[place])
    return dict(paired)


def _by_place(runs: Sequence[Run]) -> dict[tuple[float, str, int], Run]:
    places: dict[tuple[float, str, int], Run] = {}
    for run in runs:
        place = (run.train_fraction, run.key.data_set, run.key.seed)
        if place in places:
            both = [places[place], run]
            told = [
                f"{item.fingerprint[:12]} ({_differences([b.settings for b in both], index)})"
                for index, item in enumerate(both)
            ]
            raise InputError(
                f"Several runs could stand for {_describe(run)}.",
                got="; ".join(told),
                remedy="choose with --fingerprint, naming one fingerprint for each model",
            )
        places[place] = run
    return places


def _describe(run: Run) -> str:
    share = "" if run.train_fraction == 1 else f" at {run.train_fraction:.0%} of training images"
    return f"{run.key.version}/{run.key.model} on {run.key.data_set}, seed {run.key.seed}{share}"


def check_comparable(base: Run, refined: Run) -> None:
    """Refuse two runs that differ in more than the weights.

    Args:
        base: The base model's run.
        refined: The refined model's run.

    Raises:
        InputError: If settings, classes or test images differ; what differs is named.
    """
    settings = [comparable_settings(run.settings) for run in (base, refined)]
    differing = [_differences(settings, index) for index in (0, 1)]
    if differing[0]:
        raise InputError(
            f"Settings differ: {_describe(base)} and {_describe(refined)}.",
            got=f"base {differing[0]}; refined {differing[1]}",
            expected="the same settings, except for those of the weights",
            remedy="probe both models in the same way, or choose runs with --fingerprint",
        )
    same_images = base.names == refined.names and np.array_equal(base.labels, refined.labels)
    if base.classes != refined.classes or not same_images:
        raise InputError(
            f"Test images differ: {_describe(base)} and {_describe(refined)}.",
            got=f"{len(base.names)} images of {', '.join(base.classes)}; "
            f"{len(refined.names)} of {', '.join(refined.classes)}",
            expected="the same images, labels and classes in the same order",
            remedy="probe both models on the same data",
        )
