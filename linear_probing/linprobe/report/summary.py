"""The numbers of the main table: one row for each data set of a pair, and one for their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from linprobe.report.comparison import Pair, Place
from linprobe.report.wilcoxon import SignedRank, holm, mean_interval, signed_rank
from linprobe.report.wilcoxon import standard_deviation as spread
from retfiner.common.errors import InputError, shorten
from retfiner.common.results import METRIC_INFO, Run

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """Base against refined, on one data set or on the mean over data sets.

    Values are as shown: points (percent) for a share, nats for the loss.

    Attributes:
        pair: Name of the pair.
        data_set: Name of the data set; None for the mean over them.
        base: (S,) one value a seed, or one mean where seeds differ between data sets.
        refined: (S,) likewise.
        test: Signed-rank test; over seeds, or for the mean over all data sets and seeds.
        p_holm: Its p-value, corrected for the rows of its kind.
    """

    pair: str
    data_set: str | None
    base: FloatArray
    refined: FloatArray
    test: SignedRank
    p_holm: float

    @property
    def change(self) -> float:
        """Mean of refined minus base."""
        return float(self.refined.mean() - self.base.mean())

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % t interval of the change over seeds; None with a single seed."""
        return mean_interval(self.refined - self.base)

    @property
    def base_std(self) -> float:
        """Standard deviation of the base model over seeds; NaN with a single seed."""
        return spread(self.base)

    @property
    def refined_std(self) -> float:
        """Standard deviation of the refined model over seeds; NaN with a single seed."""
        return spread(self.refined)


def metric_value(run: Run, metric: str) -> float | None:
    """Read a metric of a run as it is shown; None where it does not exist.

    Args:
        run: The run.
        metric: Key of :data:`retfiner.common.results.METRIC_INFO`.

    Raises:
        InputError: If the run was written without this metric.
    """
    if metric not in run.metrics["values"]:
        raise InputError(
            f"A run has no {metric}: {run.folder}", expected=", ".join(run.metrics["values"])
        )
    value = run.metrics["values"][metric]
    return None if value is None else float(value) * METRIC_INFO[metric].scale


def paired_values(
    runs: dict[Place, tuple[Run, Run]], metric: str
) -> tuple[dict[Place, tuple[float, float]], list[str]]:
    """Read a metric of all paired runs.

    Args:
        runs: Both runs for each data set and seed.
        metric: Key of :data:`retfiner.common.results.METRIC_INFO`.

    Returns:
        Base and refined value for each place where both exist, and the data sets where they do not.

    Raises:
        InputError: If they exist nowhere.
    """
    values: dict[Place, tuple[float, float]] = {}
    undefined = set()
    for place, (base, refined) in runs.items():
        before, after = metric_value(base, metric), metric_value(refined, metric)
        if before is None or after is None:
            undefined.add(place[0])
        else:
            values[place] = (before, after)
    values = {place: value for place, value in values.items() if place[0] not in undefined}
    if not values:
        raise InputError(
            f"{METRIC_INFO[metric].label} exists on none of the data sets.",
            got=shorten(sorted(undefined)),
            remedy="choose another --metric",
        )
    return values, sorted(undefined)


def summarise(pairs: Sequence[Pair], metric: str) -> tuple[list[Row], list[str]]:
    """Compute the rows of the main table.

    Holm's correction runs over two families: the means of all pairs, and all single data sets.

    Args:
        pairs: Paired runs.
        metric: Key of :data:`retfiner.common.results.METRIC_INFO`.

    Returns:
        For each pair its data sets, then its mean; and notes on what was left out.

    Raises:
        InputError: If the metric exists nowhere in a pair.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for pair in pairs:
        values, undefined = paired_values(pair.main, metric)
        if undefined:
            notes.append(
                f"{pair.name}: {METRIC_INFO[metric].label} does not exist on "
                f"{shorten(undefined)}, which is left out."
            )
        pair_rows = [_data_set_row(pair.name, name, values) for name in _data_sets(values)]
        rows += [*pair_rows, _mean_row(pair.name, pair_rows, values)]
    for means in (True, False):
        family = [index for index, row in enumerate(rows) if (row.data_set is None) == means]
        for index, adjusted in zip(family, holm([rows[k].test.p for k in family]), strict=True):
            rows[index] = replace(rows[index], p_holm=adjusted)
    return rows, notes


def _data_sets(values: dict[Place, tuple[float, float]]) -> list[str]:
    return sorted({data_set for data_set, _ in values})


def _data_set_row(pair: str, data_set: str, values: dict[Place, tuple[float, float]]) -> Row:
    table = np.array([values[place] for place in sorted(values) if place[0] == data_set])
    test = signed_rank(table[:, 1] - table[:, 0])
    return Row(pair, data_set, table[:, 0], table[:, 1], test, test.p)


def _mean_row(pair: str, rows: Sequence[Row], values: dict[Place, tuple[float, float]]) -> Row:
    """Average over data sets, seed by seed where all have the same seeds."""
    seeds = [sorted(seed for name, seed in values if name == row.data_set) for row in rows]
    base, refined = [row.base for row in rows], [row.refined for row in rows]
    if any(own != seeds[0] for own in seeds):
        base, refined = (
            [b.mean(keepdims=True) for b in base],
            [r.mean(keepdims=True) for r in refined],
        )
    everything = np.array([values[place] for place in sorted(values)])
    test = signed_rank(everything[:, 1] - everything[:, 0])
    return Row(pair, None, np.mean(base, axis=0), np.mean(refined, axis=0), test, test.p)
