"""Bootstrap intervals against a loop that really draws patients."""

from __future__ import annotations

import numpy as np
import pytest

from retfiner.evaluation.retrieval.metrics import patient_intervals

PATIENTS = ["a"] * 5 + ["b"] * 2 + ["c"] * 4 + ["d"]


@pytest.fixture
def values():
    rng = np.random.default_rng(3)
    return rng.random(12), rng.integers(1, 40, 12).astype(float)


def test_intervals_are_those_of_drawn_patients(values):
    shares, ranks = values
    counts = np.array([1, 2, 1, 3, 1, 1, 2, 1, 1, 2, 1, 1])
    ours = patient_intervals(
        {"share": shares}, {"rank": ranks}, counts / 6, PATIENTS, 300, np.random.default_rng(7)
    )
    rng = np.random.default_rng(7)
    names = np.array(PATIENTS)
    means, medians = [], []
    for _ in range(300):
        drawn = rng.integers(4, size=4)
        rows = np.concatenate([np.flatnonzero(names == "abcd"[patient]) for patient in drawn])
        rows = np.repeat(rows, counts[rows])  # a query that counts twice is there twice
        means.append(shares[rows].mean())
        medians.append(np.median(ranks[rows]))
    for name, drawn in (("share", means), ("rank", medians)):
        assert ours[name] == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_images_of_a_patient_are_no_independent_evidence():
    """Forty images of two patients tell no more than two: the interval is wide."""
    shares = np.repeat([0.0, 1.0], 20)
    known = patient_intervals(
        {"x": shares}, {}, np.ones(40), ["a"] * 20 + ["b"] * 20, 500, np.random.default_rng(0)
    )
    unknown = patient_intervals({"x": shares}, {}, np.ones(40), None, 500, np.random.default_rng(0))
    assert known["x"] == (0.0, 1.0)
    assert unknown["x"][1] - unknown["x"][0] < 0.4


def test_no_interval_from_one_patient_or_without_resamples(values):
    shares, _ = values
    rng, alike = np.random.default_rng(0), np.ones(12)
    assert patient_intervals({"x": shares}, {}, alike, ["a"] * 12, 100, rng) == {}
    assert patient_intervals({"x": shares}, {}, alike, PATIENTS, 0, rng) == {}
