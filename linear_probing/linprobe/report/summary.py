"""All numbers of a report, from predictions alone: scores, changes, tests, ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from linprobe.report.loading import MEAN, Loaded
from linprobe.report.scores import ScoredSet, scored_set
from linprobe.statistics import (
    FloatArray,
    SignedRank,
    critical_difference,
    data_sets_needed,
    holm,
    mean_ranks,
    sign_flip_test,
    signed_rank,
)
from retfiner.common.bootstrap import Units, bootstrap_interval
from retfiner.common.errors import InputError, shorten
from retfiner.common.metrics import ALL_METRICS, PER_CLASS, chance, interval_of
from retfiner.common.progress import track
from retfiner.common.seeds import derive_seed

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Draws:
    """Values on resamples of the patients, as shown.

    Attributes:
        values: By data set, metric and model: (R,), of resamples that hold every class.
        kept: By data set: (all resamples,), which of them these are.
        owners: By data set, the first one that has its images: they were resampled together.
    """

    values: dict[str, dict[str, dict[str, FloatArray]]]
    kept: dict[str, NDArray[np.bool_]]
    owners: dict[str, str]

    def on(self, metric: str, model: str, data_set: str) -> FloatArray:
        """Give the values on a data set, or on the mean over them: (R,).

        Each is resampled by itself, a bootstrap stratified by data set; but of tasks on the same
        images a resample's values go together, and there are none where one task lacks a class.
        """
        if data_set != MEAN:
            return self.values[data_set][metric][model]
        sums: dict[str, FloatArray] = {}
        for name, owner in self.owners.items():
            whole = np.full(len(self.kept[name]), np.nan)
            whole[self.kept[name]] = self.values[name][metric][model]
            sums[owner] = sums.get(owner, 0.0) + whole
        found = [one[~np.isnan(one)] for one in sums.values()]
        shortest = min(map(len, found))  # resamples that lacked a class were left out
        return np.sum([one[:shortest] for one in found], axis=0) / len(self.owners)


@dataclass(frozen=True)
class Score:
    """What a model scores on a data set, or on the mean over them, and the interval of its mean.

    ``values`` (S,) are one a seed; a single one where nothing is random, or seeds differ in number.
    """

    values: FloatArray
    interval: Interval

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds; NaN for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True)
class Change:
    """A model against another, on a data set or on the mean over them (``data_set`` is MEAN).

    Attributes:
        base: Name of the model it is compared with.
        model: Name of the model.
        change: Its score minus the other's, seeds averaged.
        interval: 95 % bootstrap interval, paired by patient.
        p: Of one data set, by swaps of patients; of the mean, by sign flips over data sets. NaN
            where no test was made.
        p_holm: The same, corrected for all of its kind.
    """

    base: str
    model: str
    data_set: str
    change: float
    interval: Interval
    p: float = float("nan")
    p_holm: float = float("nan")


@dataclass(frozen=True)
class Summary:
    """The numbers of a report, all as shown (percent for a share).

    Attributes:
        metric: The main metric.
        models: Names, in the order asked for.
        item: What a row is a prediction of: image, volume, eye or patient.
        sets: The data sets.
        pairs: Which models are compared.
        scores: Of the main metric, by model and data set, MEAN among them.
        changes: For each pair, its data sets and then their mean.
        pooled: For each pair, the paper's test over data sets and seeds: a footnote.
        pairwise: Change of the mean for each two models (second minus first); their intervals hold
            together at 95 %.
        ranks: Mean rank of each model over data sets.
        critical: How far two of them must lie apart; NaN where there is nothing to rank.
        undefined: Data sets on which the main metric does not exist.
        metrics: Every metric, of each model and data set: a row each.
        swaps: Permutations behind the p of a data set.
        owners: (K,) of each data set, the first one that has its images.
    """

    metric: str
    models: list[str]
    item: str
    sets: list[ScoredSet]
    pairs: list[tuple[str, str]]
    scores: dict[tuple[str, str], Score]
    changes: list[Change]
    pooled: dict[tuple[str, str], SignedRank]
    pairwise: dict[tuple[str, str], Change]
    ranks: dict[str, float]
    critical: float
    undefined: list[str]
    metrics: pd.DataFrame
    swaps: int
    owners: list[str]

    def of_pair(self, pair: tuple[str, str]) -> list[Change]:
        """Take the changes of one pair by :attr:`rows`."""
        own = (one for one in self.changes if (one.base, one.model) == pair)
        return [one for one in own if one.data_set in self.rows]

    @property
    def rows(self) -> list[str]:
        """Name what tables and figures show: the data sets, and MEAN where there are several."""
        return [*(one.name for one in self.sets), *[MEAN] * (len(self.sets) > 1)]

    @property
    def kind(self) -> str:
        """What is predicted: the same on all data sets."""
        return self.sets[0].kind

    @property
    def unit(self) -> str:
        """What is drawn and swapped: patient, or what else, where not all are known."""
        return " or ".join(sorted({one.unit for one in self.sets}, reverse=True))

    @property
    def independent(self) -> int:
        """Number of data sets, of which tasks on the same images are one."""
        return len(set(self.owners))

    @property
    def joined(self) -> list[list[str]]:
        """Name the data sets that are tasks on the same images."""
        together = ([one.name for one, whose in zip(self.sets, self.owners, strict=True)
                     if whose == owner] for owner in dict.fromkeys(self.owners))  # fmt: skip
        return [names for names in together if len(names) > 1]

    @property
    def needed(self) -> int:
        """Number of data sets from which on a mean's p, corrected, can fall below 0.05."""
        return data_sets_needed(0.05 / max(1, len(self.pairs)))

    @property
    def lowest(self) -> float:
        """The lowest corrected p that a single data set can have, of so many tests."""
        return min(1.0, len(self.pairs) * len(self.sets) / (self.swaps + 1))

    @property
    def unvaried(self) -> list[str]:
        """Name the data sets where every resample gives the same, so that there is no interval."""
        told = (self.scores if not self.pairs else {}).items()
        without = {data_set for (_, data_set), score in told if score.interval is None}
        without |= {one.data_set for one in self.changes if one.interval is None}
        return [one.name for one in self.sets if one.name in without and one.n_units > 1]

    def chance_on(self, data_set: str) -> float | None:
        """Say what guessing scores, on a data set or on the mean over them."""
        found = [
            chance(one.labels, len(one.classes), one.kind)[self.metric]
            for one in self.sets
            if data_set in (MEAN, one.name)
        ]
        known = [value for value in found if value is not None]
        return ALL_METRICS[self.metric].scale * float(np.mean(known)) if known else None


def summarise(
    loaded: Loaded,
    metric: str,
    *,
    scales: Mapping[str, Sequence[str]],
    resamples: int,
    swaps: int,
    seed: int,
) -> Summary:
    """Compute everything that a report says.

    ``metric`` is a key of ``ALL_METRICS``; ``scales`` are classes in order, by data set, where they
    are a scale; ``swaps`` are the permutations behind the p-value of a data set.

    Raises:
        InputError: If test images differ, or the metric exists nowhere.
    """
    defined, undefined = _sets(loaded, metric, scales)
    metrics = {one.name: _names_of(one) for one in defined}
    draws = _draw(defined, metrics, loaded.owners, resamples, seed)
    owners = list(draws.owners.values())
    summary = Summary(
        metric, loaded.names, loaded.item, defined, loaded.pairs,
        _scores(defined, metric, draws), [], {}, {}, *_ranks(defined, metric, len(set(owners))),
        undefined, pd.DataFrame(_metric_rows(defined, draws)), swaps, owners,
    )  # fmt: skip
    every_two = list(combinations(loaded.names, 2))
    return replace(
        summary,
        changes=_changes(summary, draws, swaps, seed),
        pooled={pair: _pooled(summary, pair) for pair in loaded.pairs},
        pairwise={p: _change(summary, draws, p, MEAN, len(every_two)) for p in every_two},
    )


def mean_scores(
    loaded: Loaded, metric: str, *, scales: Mapping[str, Sequence[str]], resamples: int, seed: int
) -> tuple[list[ScoredSet], dict[str, Score]]:
    """Compute what the models score on the mean over all data sets, and nothing else."""
    sets, _ = _sets(loaded, metric, scales)
    metrics = {one.name: [metric] for one in sets}
    draws = _draw(sets, metrics, loaded.owners, resamples, seed)
    scores = _scores(sets, metric, draws)
    return sets, {model: scores[model, MEAN] for model in loaded.names}


def _sets(
    loaded: Loaded, metric: str, scales: Mapping[str, Sequence[str]]
) -> tuple[list[ScoredSet], list[str]]:
    """Line up the data sets on which the metric exists; name the others."""
    names = loaded.data_sets
    every = [scored_set(loaded.at(n, loaded.main_amount), scales.get(n, ())) for n in names]
    defined = [
        one for one in every
        if all(np.isfinite(one.values(metric, model)).all() for model in loaded.names)
    ]  # fmt: skip
    undefined = [one.name for one in every if one not in defined]
    if not defined:
        raise InputError(
            f"{ALL_METRICS[metric].label} exists on none of the data sets.",
            got=shorten(undefined),
            remedy="choose another --metric, or say with --ordered which classes are a scale",
        )
    return defined, undefined


def _names_of(one: ScoredSet) -> list[str]:
    """List the metrics that exist on a data set, those of single classes included."""
    plain = [name for name in ALL_METRICS if one.exists(name)]
    kinds = () if one.kind == "regression" else PER_CLASS
    return [*plain, *(f"{kind}/{label}" for kind in kinds for label in one.classes)]


def _draw(
    sets: Sequence[ScoredSet],
    metrics: Mapping[str, Sequence[str]],
    owners: Mapping[str, str],
    resamples: int,
    seed: int,
) -> Draws:
    """Resample each data set; tasks on the same images, of the same patients, alike."""
    draws = Draws({}, {}, {one.name: owners.get(one.name, one.name) for one in sets})
    firsts: dict[str, ScoredSet] = {}
    for one in track(sets, "intervals by patient", len(sets), "data set"):
        first = firsts.setdefault(draws.owners[one.name], one)
        together = first if set(first.units) == set(one.units) else one
        rng = np.random.default_rng(derive_seed(seed, "bootstrap", together.name))
        found = one.drawn_and_kept(metrics[one.name], resamples, rng)
        draws.values[one.name], draws.kept[one.name] = found
    return draws


def _units(sets: Sequence[ScoredSet], data_set: str) -> list[Units]:
    return [one.drawn for one in sets if data_set in (MEAN, one.name)]


def _scores(sets: Sequence[ScoredSet], metric: str, draws: Draws) -> dict[tuple[str, str], Score]:
    scores = {}
    for model in sets[0].probabilities:
        by_set = [one.values(metric, model) for one in sets]
        # Averaged seed by seed, so that its spread is that of the mean.
        equal = len({len(values) for values in by_set}) == 1
        mean = np.mean(by_set if equal else [[v.mean()] for v in by_set], axis=0)
        for name, values in [*zip((s.name for s in sets), by_set, strict=True), (MEAN, mean)]:
            drawn = draws.on(metric, model, name)
            interval = interval_of(metric, float(np.mean(values)), drawn, _units(sets, name))
            scores[model, name] = Score(np.asarray(values), interval)
    return scores


def _change(
    summary: Summary, draws: Draws, pair: tuple[str, str], data_set: str, together: int = 1
) -> Change:
    """Compare two models; the interval is of so many that hold ``together`` (Bonferroni)."""
    base, other = pair
    drawn = [draws.on(summary.metric, model, data_set) for model in (base, other)]
    units = _units(summary.sets, data_set)
    interval = bootstrap_interval(drawn[1] - drawn[0], units, 1 - 0.05 / together)
    change = summary.scores[other, data_set].mean - summary.scores[base, data_set].mean
    return Change(base, other, data_set, change, interval)


def _changes(summary: Summary, draws: Draws, swaps: int, seed: int) -> list[Change]:
    """Compare the pairs; Holm's correction is over all single data sets, and over all means."""
    changes = []
    for pair in track(summary.pairs, "tests", len(summary.pairs), "comparison"):
        own = []
        for one in summary.sets:
            rng = np.random.default_rng(derive_seed(seed, "swaps", one.name))
            p = one.p_value(summary.metric, pair, swaps, rng)
            own.append(replace(_change(summary, draws, pair, one.name), p=p))
        # Tasks on the same images have one sign: they stand or fall together.
        changes_of: dict[str, float] = {}
        for owner, change in zip(summary.owners, own, strict=True):
            changes_of[owner] = changes_of.get(owner, 0.0) + change.change
        p = sign_flip_test(list(changes_of.values()))
        changes += [*own, replace(_change(summary, draws, pair, MEAN), p=p)]
    for of_means in (True, False):
        family = [k for k, one in enumerate(changes) if (one.data_set == MEAN) == of_means]
        for k, adjusted in zip(family, holm([changes[k].p for k in family]), strict=True):
            changes[k] = replace(changes[k], p_holm=adjusted)
    return changes


def _pooled(summary: Summary, pair: tuple[str, str]) -> SignedRank:
    """Run the paper's test: signed ranks of all data sets and seeds together."""
    differences = []
    for one in summary.sets:
        base, other = (summary.scores[model, one.name].values for model in pair)
        paired = len(base) == len(other)
        differences.append(other - base if paired else [other.mean() - base.mean()])
    return signed_rank(np.concatenate(differences))


def _ranks(
    sets: Sequence[ScoredSet], metric: str, independent: int
) -> tuple[dict[str, float], float]:
    models = list(sets[0].probabilities)
    sign = 1 if ALL_METRICS[metric].higher_is_better else -1
    table = [[sign * one.values(metric, model).mean() for model in models] for one in sets]
    ranks = dict(zip(models, mean_ranks(np.array(table)).tolist(), strict=True))
    worth = len(models) > 2 and independent > 1
    return ranks, critical_difference(len(models), independent) if worth else float("nan")


def _metric_rows(sets: Sequence[ScoredSet], draws: Draws) -> Iterator[dict[str, object]]:
    """Give every metric of each model, on each data set and on the mean over them."""
    for model in sets[0].probabilities:
        observed = [one.observed(_names_of(one), model) for one in sets]
        for one, values in zip(sets, observed, strict=True):
            for name, value in values.items():
                drawn = draws.on(name, model, one.name)
                yield _metric_row(model, [one], one.name, name, value, drawn)
        for name in ALL_METRICS:
            if name == "mae" and len(sets) > 1:
                continue  # of values in different units
            if all(name in values for values in observed):
                value = float(np.mean([values[name] for values in observed]))
                yield _metric_row(model, sets, MEAN, name, value, draws.on(name, model, MEAN))


def _metric_row(
    model: str, sets: Sequence[ScoredSet], data_set: str, name: str, value: float, drawn: FloatArray
) -> dict[str, object]:
    kind, _, label = name.partition("/")
    interval = interval_of(name, value, drawn, _units(sets, MEAN))
    low, high = interval or (float("nan"),) * 2
    return {"model": model, "data_set": data_set, "metric": kind, "class": label, "value": value,
            "low": low, "high": high, "units": sum(one.n_units for one in sets)}  # fmt: skip
