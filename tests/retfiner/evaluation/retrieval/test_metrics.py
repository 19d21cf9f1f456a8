"""Bootstrap intervals against a loop that really draws patients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

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
    # Hesterberg, 2015: as wide as Student's t of four patients.
    tail = norm.cdf(-np.sqrt(4 / 3) * t.ppf(0.975, 3))
    for name, drawn in (("share", means), ("rank", medians)):
        assert ours[name] == pytest.approx(tuple(np.quantile(drawn, [tail, 1 - tail])))


def test_what_all_resamples_agree_on_has_no_interval(values):
    """That no query of four patients is found does not mean that none ever will be."""
    _, ranks = values
    found = patient_intervals({"none": np.zeros(12)}, {"rank": ranks}, np.ones(12), PATIENTS, 100,
                              np.random.default_rng(0))  # fmt: skip
    assert set(found) == {"rank"}


def test_the_interval_holds_the_truth_of_few_patients():
    """Ten patients of one to six queries each: plain percentiles held it in 90 % of studies."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        sizes = rng.integers(1, 7, 10)
        found = (rng.random(sizes.sum()) < np.repeat(rng.beta(1, 2, 10), sizes)).astype(float)
        owners = np.repeat([*"abcdefghij"], sizes).tolist()
        ends = patient_intervals({"x": found}, {}, np.ones(len(found)), owners, 200, rng).get("x")
        held.append(ends is not None and ends[0] <= 1 / 3 <= ends[1])
    assert 0.91 < np.mean(held) < 0.98


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
