"""Shares of the training images."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linprobe.fractions import draw_fraction, draw_shots


def each(labels):
    return [f"image {k:04d}" for k in range(len(labels))]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_by_image_each_class_gives_its_share():
    labels = np.repeat([0, 1, 2], [100, 40, 20])
    rows = draw_fraction(labels, each(labels), 0.25, rng())
    assert np.bincount(labels[rows]).tolist() == [25, 10, 5]
    assert (np.diff(rows) > 0).all()


def test_all_of_them():
    assert draw_fraction(np.array([0, 1, 1]), list("abc"), 1.0, rng()).tolist() == [0, 1, 2]


def test_the_smallest_share_still_holds_every_class():
    labels = np.repeat([0, 2, 3], [500, 3, 1])  # class 1 has no training image
    rows = draw_fraction(labels, each(labels), 0.001, rng())
    assert np.bincount(labels[rows]).tolist() == [1, 0, 1, 1]


def test_patients_are_never_torn_apart():
    labels = np.repeat([0, 1], 60)
    patients = [f"p{k // 4}" for k in range(120)]
    rows = draw_fraction(labels, patients, 0.3, rng())
    taken = {patients[k] for k in rows}
    assert sorted(rows) == [k for k in range(120) if patients[k] in taken]
    assert np.bincount(labels[rows]).tolist() == [20, 20]  # 18 wanted, whole patients of 4 taken


def test_seeds_differ_and_repeat():
    labels = np.repeat([0, 1], 50)
    first, again, other = (
        draw_fraction(labels, each(labels), 0.1, rng(seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=60),
    st.floats(0.01, 1.0),
    st.integers(0, 5),
)
def test_every_draw_is_whole_and_holds_every_class(images, fraction, seed):
    labels = np.array([label for label, _ in images])
    patients = [str(patient) for _, patient in images]
    rows = draw_fraction(labels, patients, fraction, rng(seed))
    taken = {patients[k] for k in rows}
    assert rows.tolist() == [k for k in range(len(labels)) if patients[k] in taken]
    assert set(labels[rows]) == set(labels)


@pytest.mark.parametrize("patients", [each(range(300)), [f"p{k // 3}" for k in range(300)]])
def test_a_smaller_draw_lies_in_a_larger_one(patients):
    labels = np.repeat([0, 1, 2], 100)
    draws = [set(draw_fraction(labels, patients, f, rng(4))) for f in (0.05, 0.1, 0.4, 1.0)]
    assert all(a < b for a, b in pairwise(draws))


def test_shots_are_so_many_of_each_class_from_as_many_patients_as_there_are():
    labels = np.repeat([0, 1, 2], [40, 12, 3])
    units = [f"p{k // 4}" for k in range(len(labels))]  # four images of each patient
    draws = [draw_shots(labels, units, k, np.random.default_rng(3)) for k in (1, 2, 4, 16)]
    for smaller, larger in pairwise(draws):
        assert set(smaller) < set(larger)
    assert [np.bincount(labels[rows]).tolist() for rows in draws] == [
        [1, 1, 1], [2, 2, 2], [4, 4, 3], [16, 12, 3],
    ]  # fmt: skip
    assert len({units[row] for row in draws[1] if labels[row] == 0}) == 2
    assert len({units[row] for row in draws[3] if labels[row] == 0}) == 10
    other = draw_shots(labels, units, 4, np.random.default_rng(4))
    assert set(other) != set(draws[2])
