"""How often what the probing report prints is wrong: coverage and false-positive rates, simulated.

    python benchmarks/error_rates.py --studies 1000

Patients with one to three images are drawn, and what two models (five seeds each) say of them: part
of it common to both (hard patients and images), part a model's own, part a seed's (single images,
and a lean of its head). Where nothing differs but chance, every star is a false one; where the
truth is known, an interval holds it or not. All is computed by the functions the report calls.
The figures stand in docs/statistics.md; a thousand studies take some ten minutes on two cores.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from linprobe.report.scores import ScoredSet
from linprobe.statistics import (
    FloatArray,
    critical_difference,
    holm,
    mean_ranks,
    sign_flip_test,
    signed_rank,
)
from retfiner.common.bootstrap import bootstrap_interval
from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.common.metrics import METRICS, interval_of
from retfiner.common.numbers import PositiveInt


@dataclass(frozen=True)
class ErrorRatesConfig:
    """The command line."""

    studies: PositiveInt = flag("simulated studies behind each row", 1000)
    processes: PositiveInt = flag("processes", 2)


METRIC, SEEDS = "balanced_accuracy", 5
SIZES = (30, 60, 120, 240)
"""Patients of a test set; data sets take these in turn."""


def draw_set(
    rng: np.random.Generator,
    patients: int,
    classes: int,
    gains: dict[str, float],
    prevalence: float = 1.0,
    spread: float = 0.0,
) -> ScoredSet:
    """Draw what models say of a test set; the true class stands out by 1.2 and a model's gain.

    Each class is ``prevalence`` times as frequent as the one before; ``spread`` is the standard
    deviation of what a model gains on this data set alone.
    """
    weights = prevalence ** np.arange(classes)
    owner_labels = rng.choice(classes, size=patients, p=weights / weights.sum())
    owner_labels[:classes] = np.arange(classes)
    owner = np.repeat(np.arange(patients), rng.integers(1, 4, size=patients))
    labels, n = owner_labels[owner], len(owner)

    def by_patient(of_patients: float, of_images: float) -> FloatArray:
        drawn = of_patients * rng.normal(size=(patients, classes))[owner]
        return drawn + of_images * rng.normal(size=(n, classes))

    common, probabilities = by_patient(1.0, 0.7), {}
    for model, gain in gains.items():
        logits = np.tile(common + by_patient(0.5, 0.4), (SEEDS, 1, 1))
        logits += 0.3 * rng.normal(size=(SEEDS, n, classes))
        logits += 0.1 * rng.normal(size=(SEEDS, 1, classes))
        logits[:, np.arange(n), labels] += 1.2 + gain + spread * rng.normal()
        shifted = np.exp(logits - logits.max(axis=2, keepdims=True))
        probabilities[model] = shifted / shifted.sum(axis=2, keepdims=True)
    names = list(map(str, range(classes)))
    images, units = list(map(str, range(n))), [f"patient {k}" for k in owner]
    trained_on = dict.fromkeys(gains)
    return ScoredSet("simulated", names, False, images, labels, units, "patient", 0, probabilities,
                     trained_on)  # fmt: skip


def change_of(scored: ScoredSet) -> FloatArray:
    """Give the change of each seed."""
    return scored.values(METRIC, "other") - scored.values(METRIC, "base")


def truth_of(classes: int, gain: float, prevalence: float) -> float:
    """Give the true change: that on very many patients."""
    rng = np.random.default_rng(0)
    gains = {"base": 0.0, "other": gain}
    sets = (draw_set(rng, 5000, classes, gains, prevalence) for _ in range(20))
    return float(np.mean([change_of(one).mean() for one in sets]))


def over_seeds(changes: FloatArray) -> tuple[float, float]:
    """Give Student's interval over seeds, which this report does not print."""
    half = t.ppf(0.975, len(changes) - 1) * changes.std(ddof=1) / np.sqrt(len(changes))
    return changes.mean() - half, changes.mean() + half


def draws_of(scored: ScoredSet, rng: np.random.Generator) -> FloatArray:
    """Give the change on resamples of the patients."""
    draws = scored.draws([METRIC], 1000, rng)[METRIC]
    return draws["other"] - draws["base"]


def coverage_study(task: tuple[int, int, int, float, float, float]) -> list[bool]:
    """One data set: do the interval by patient, and the one over seeds, hold the truth?"""
    number, patients, classes, gain, prevalence, truth = task
    rng = np.random.default_rng([1, number, patients, classes])
    scored = draw_set(rng, patients, classes, {"base": 0.0, "other": gain}, prevalence)
    ends = bootstrap_interval(draws_of(scored, rng), [scored.drawn])
    return [low <= truth <= high for low, high in (ends, over_seeds(change_of(scored)))]


def score_study(task: tuple[int, int, dict[str, float]]) -> list[bool]:
    """One model: does the interval of each of its scores hold the truth?"""
    number, patients, truths = task
    rng = np.random.default_rng([4, number, patients])
    scored = draw_set(rng, patients, 3, {"one": 0.3})
    values, draws = scored.observed([*truths], "one"), scored.draws([*truths], 500, rng)
    ends = {m: interval_of(m, values[m], draws[m]["one"], [scored.drawn]) for m in truths}
    return [end is not None and end[0] <= truths[m] <= end[1] for m, end in ends.items()]


def null_study(task: tuple[int, int, float, int]) -> dict[str, float]:
    """A table of data sets on which nothing truly differs, or differs without direction."""
    number, n_sets, spread, swaps = task
    rng = np.random.default_rng([2, number, n_sets, int(100 * spread)])
    gains = {"base": 0.0, "other": 0.0}
    sets = [draw_set(rng, SIZES[k % 4], 2 + k % 3, gains, spread=spread) for k in range(n_sets)]
    changes = np.stack([change_of(one) for one in sets])
    found = {"mean, sign flips over data sets": sign_flip_test(changes.mean(axis=1)) < 0.05,
             "pooled Wilcoxon (footnote)": signed_rank(changes).p < 0.05}  # fmt: skip
    if swaps:
        p = [one.p_value(METRIC, ("base", "other"), swaps, rng) for one in sets]
        found["one data set, swaps"] = np.mean(np.array(p) < 0.05)
        found["one data set, swaps, at 5 % over their number"] = np.mean(
            np.array(p) < 0.05 / n_sets
        )
        found["any data set, after Holm"] = min(holm(p)) < 0.05
        draws = [draws_of(one, rng) for one in sets]
        mean = np.mean([one[: min(map(len, draws))] for one in draws], axis=0)
        low, high = bootstrap_interval(mean, [one.drawn for one in sets])
        found["interval of the mean without 0"] = not low <= 0 <= high
    return found


def rank_study(task: tuple[int, int]) -> list[bool]:
    """Five equal models: does any pair differ by its ranks, or by its interval of the mean?"""
    number, n_sets = task
    rng = np.random.default_rng([3, number, n_sets])
    gains = dict.fromkeys("abcde", 0.0)
    sets = [draw_set(rng, SIZES[k % 4], 2 + k % 3, gains) for k in range(n_sets)]
    scores = np.array([[one.values(METRIC, model).mean() for model in gains] for one in sets])
    draws = [one.draws([METRIC], 1000, rng)[METRIC] for one in sets]
    shortest = min(len(one["a"]) for one in draws)
    means = {model: np.mean([one[model][:shortest] for one in draws], axis=0) for model in gains}
    pairs, units = list(combinations(gains, 2)), [one.drawn for one in sets]
    ends = [bootstrap_interval(means[b] - means[a], units, 1 - 0.05 / len(pairs)) for a, b in pairs]
    return [bool(np.ptp(mean_ranks(scores)) > critical_difference(5, n_sets)),
            any(not low <= 0 <= high for low, high in ends)]  # fmt: skip


def percent(values: ArrayLike) -> str:
    """Write a share with twice its standard error."""
    found = np.asarray(values, dtype=float)
    return f"{100 * found.mean():.1f} ± {200 * np.sqrt(found.var() / len(found)):.1f}"


def main() -> None:
    """Run the studies and print their tables."""
    args = parse(ErrorRatesConfig, "Coverage and false-positive rates of the probing report.")
    studies = range(args.studies)
    with multiprocessing.Pool(args.processes) as pool:
        print("Coverage of 95 % intervals of a change (%)\n")
        print("| classes | rarer class | patients | by patient | over seeds |")
        print("| ---: | ---: | ---: | ---: | ---: |")
        for classes, prevalence, gain in ((2, 1.0, 0.0), (3, 1.0, 0.5), (3, 0.6, 0.5)):
            truth = truth_of(classes, gain, prevalence)
            for patients in SIZES:
                tasks = [(k, patients, classes, gain, prevalence, truth) for k in studies]
                held = np.array(pool.map(coverage_study, tasks, chunksize=20))
                row = (classes, f"× {prevalence}", patients, *map(percent, held.T))
                print(f"| {' | '.join(map(str, row))} |", flush=True)
        print("\nCoverage of 95 % intervals of a model's scores, three classes (%)\n")
        metrics = [name for name, metric in METRICS.items() if not metric.ordered]
        many = draw_set(np.random.default_rng(0), 20_000, 3, {"one": 0.3})
        truths = many.observed(metrics, "one")
        for patients in (40, 120):
            tasks = [(k, patients, truths) for k in studies]
            held = np.array(pool.map(score_study, tasks, chunksize=20))
            for name, column in zip(metrics, held.T, strict=True):
                print(f"| {patients} patients | {name} | {percent(column)} |", flush=True)
        print("\nFalse positives at 5 % (%)\n")
        for n_sets, spread, swaps in ((7, 0.0, 999), (4, 0.0, 0), (7, 0.3, 0), (10, 0.3, 0)):
            found = pool.map(
                null_study, [(k, n_sets, spread, swaps) for k in studies], chunksize=10
            )
            for name in found[0]:
                told = percent([one[name] for one in found])
                print(f"| {n_sets} data sets, spread {spread} | {name} | {told} |", flush=True)
        for n_sets in (7, 12):
            far = pool.map(rank_study, [(k, n_sets) for k in studies], chunksize=20)
            for name, found in zip(("critical difference", "an interval of a pair without 0"),
                                   np.array(far).T, strict=True):  # fmt: skip
                print(f"| {n_sets} data sets, 5 models | {name} | {percent(found)} |")


if __name__ == "__main__":
    run_entry_point(main)
