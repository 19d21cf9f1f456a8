"""Scores by sex, age, device and ethnicity, where the table has them, and the worst of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from linprobe.report import tables as lay
from linprobe.report.scores import ScoredSet
from linprobe.report.summary import Interval, Summary
from linprobe.report.tables import Line, Table
from retfiner.common.bootstrap import FloatArray, bootstrap_interval
from retfiner.common.metrics import ALL_METRICS
from retfiner.common.patients import age_group
from retfiner.common.seeds import derive_seed


class Group(NamedTuple):
    """One group of a data set: what each model scores, and what each pair changes.

    ``small`` says that some class of the data set has too few patients in it, or none.
    """

    name: str
    units: int
    small: bool
    scores: list[tuple[float, Interval]]
    changes: list[tuple[float, Interval]]


def subset(one: ScoredSet, rows: NDArray[np.bool_]) -> ScoredSet:
    """Take some rows of a data set."""
    chosen = np.flatnonzero(rows)
    return replace(
        one,
        images=[one.images[k] for k in chosen],
        labels=one.labels[chosen],
        units=[one.units[k] for k in chosen],
        probabilities={model: table[:, chosen] for model, table in one.probabilities.items()},
        groups={},
    )


def score_group(
    one: ScoredSet, name: str, rows: NDArray[np.bool_], summary: Summary,
    resamples: int, generator: np.random.Generator,
) -> Group:  # fmt: skip
    """Score one group, with intervals by its patients."""
    part = subset(one, rows)
    metric, fewest = summary.metric, part.units_of_classes
    small = len(fewest) < len(one.units_of_classes) or fewest[0] < lay.FEW_UNITS
    drawn = part.draws([metric], resamples, generator)[metric]
    values = {model: float(part.values(metric, model).mean()) for model in summary.models}

    def interval(draws: FloatArray) -> Interval:
        return bootstrap_interval(draws, [part.drawn])

    return Group(
        name,
        part.n_units,
        small,
        [(values[model], interval(drawn[model])) for model in summary.models],
        [(values[b] - values[a], interval(drawn[b] - drawn[a])) for a, b in summary.pairs],
    )


def subgroup_tables(summary: Summary, resamples: int, seed: int) -> list[Table]:
    """Lay out the groups of each data set that knows of any, and the worst of each kind."""
    tables = []
    for one in summary.sets:
        lines = []
        for column, values in one.groups.items():
            known = np.array([age_group(v) if column == "age" else v for v in values])
            groups = []
            for name in sorted(set(known.tolist()) - {""}):
                rng = np.random.default_rng(derive_seed(seed, "group", one.name, column, name))
                groups.append(score_group(one, name, known == name, summary, resamples, rng))
            missing, total = int((known == "").sum()), len(known)
            told = f"{column} (of {missing} of {total} not known)" if missing else column
            lines.append(Line((told,), "heading"))
            digits = ALL_METRICS[summary.metric].digits - 1
            lines += [_line(group, one.unit, digits) for group in groups]
            lines += _worst(groups, summary)
        if lines:
            tables.append(_table(one, summary, lines))
    return tables


def _line(group: Group, unit: str, digits: int) -> Line:
    name = f"{group.name} ({group.units} {unit}s{', few' if group.small else ''})"
    told = [lay.with_interval(*score, digits=digits) for score in group.scores]
    told += [lay.with_interval(*change, True, digits) for change in group.changes]
    return Line((name, *told))


def _worst(groups: Sequence[Group], summary: Summary) -> list[Line]:
    """Name, for each model and change, the worst of the groups that are large enough."""
    judged = [group for group in groups if not group.small]
    if len(judged) < 2:
        return []
    info = ALL_METRICS[summary.metric]
    best, digits = (1 if info.higher_is_better else -1), info.digits - 1
    columns = [[(v, g.name) for g in judged for v, _ in [(*g.scores, *g.changes)[k]]]
               for k in range(len(summary.models) + len(summary.pairs))]  # fmt: skip
    cells = []
    for k, column in enumerate(columns):
        worst, name = min(column, key=lambda pair: best * pair[0])
        spread = max(v for v, _ in column) - min(v for v, _ in column)
        change = k >= len(summary.models)
        text = lay.number(worst, digits, change)
        cells.append(f"{text} ({name}{'' if change else f'; gap {spread:.{digits}f}'})")
    return [Line(("Worst group", *cells), "mean")]


def _table(one: ScoredSet, summary: Summary, lines: list[Line]) -> Table:
    notes = [
        f"Intervals: bootstrap of the group's {one.unit}s. No test is made and nothing is starred: "
        "of many groups, some differ by chance.",
        f"few: some class of the data set has fewer than {lay.FEW_UNITS} {one.unit}s in the group; "
        "such groups are not judged as the worst. Gap: best group minus worst.",
    ]
    arrows = (f"{base} → {model}" for base, model in summary.pairs)
    caption = f"{one.name}: {ALL_METRICS[summary.metric].axis} by group, and what changes."
    columns = ("Group", *summary.models, *arrows)
    return Table(f"Subgroups of {one.name}", caption, columns, lines, notes)
