"""Zero-shot values below the probes: what a model tells apart without having seen a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from linprobe.report.comparison import Pair
from linprobe.report.summary import metric_value
from linprobe.report.tables import MEAN, Cell, Line, Table
from retfiner.common.errors import InputError
from retfiner.common.results import METRIC_INFO, Run, read_runs

_NONE = Cell("–")


def with_zero_shot(
    table: Table,
    results: Path | str,
    model: str,
    pairs: Sequence[Pair],
    metric: str,
    fingerprints: Sequence[str] = (),
) -> Table:
    """Add the zero-shot values of a model to the main table.

    Args:
        table: The main table.
        results: Folder of all results.
        model: ``zero_shot/<model>`` as ``evaluate.py --task zero_shot`` wrote it.
        pairs: The probes in the table.
        metric: The metric it shows.
        fingerprints: Beginnings of run fingerprints, to choose where there are several runs.

    Raises:
        InputError: If there are no such results, several that fit, or none of a probed data set,
            or the test images are others than those of the probes.
    """
    runs = _choose(read_runs(results, model), model, fingerprints)
    probed = {name: both[1] for pair in pairs for (name, _), both in pair.main.items()}
    shown = {name: run for name, run in sorted(runs.items()) if name in probed}
    if not shown:
        raise InputError(
            f"{model} has no result of a probed data set",
            got=", ".join(sorted(runs)),
            expected=", ".join(sorted(probed)),
        )
    for name, run in shown.items():
        _check_images(run, probed[name])
    values = {name: metric_value(run, metric) for name, run in shown.items()}
    lines = [Line((Cell(f"Zero-shot: {model}"),), "heading")]
    lines += [_line(name, value, "body") for name, value in values.items()]
    known = [value for value in values.values() if value is not None]
    lines.append(_line(MEAN, float(np.mean(known)) if known else None, "mean"))
    return replace(
        table,
        lines=[*table.lines, *lines],
        notes=[*table.notes, _note(shown, sorted(set(probed) - set(shown)), metric)],
    )


def _choose(runs: Sequence[Run], model: str, fingerprints: Sequence[str]) -> dict[str, Run]:
    """Take the one run of each data set."""
    chosen: dict[str, Run] = {}
    for run in runs:
        if fingerprints and not run.fingerprint.startswith(tuple(fingerprints)):
            continue
        name = run.key.data_set
        # Another seed draws another bootstrap; the values are the same.
        if name in chosen and chosen[name].fingerprint != run.fingerprint:
            raise InputError(
                f"{model} has several results on {name}",
                got=f"{chosen[name].fingerprint[:12]} and {run.fingerprint[:12]}",
                remedy="choose with --fingerprint, or remove the others",
            )
        chosen[name] = run
    return chosen or _choose(runs, model, ())


def _check_images(run: Run, probe: Run) -> None:
    same = run.names == probe.names and run.classes == probe.classes
    if not same or not np.array_equal(run.labels, probe.labels):
        raise InputError(
            f"the zero-shot result on {run.key.data_set} is of other images than the probes",
            got=f"{len(run.names)} images of {', '.join(run.classes)}",
            expected=f"the {len(probe.names)} test images of {', '.join(probe.classes)}",
            remedy="evaluate.py --task zero_shot on the test split of the same folder",
        )


def _line(name: str, value: float | None, kind: str) -> Line:
    text = _NONE if value is None else Cell(f"{value:.2f}")
    return Line((Cell(name), _NONE, text, _NONE, _NONE, _NONE), kind)


def _note(shown: dict[str, Run], missing: list[str], metric: str) -> str:
    note = "Zero-shot rows: classes described in words, no label seen, nothing trained."
    if metric == "balanced_accuracy":
        chance = METRIC_INFO[metric].scale
        told = [f"{chance / len(run.classes):.2f} on {name}" for name, run in shown.items()]
        note += f" Chance is {', '.join(told)}."
    return note + (f" No result on {', '.join(missing)}." if missing else "")
