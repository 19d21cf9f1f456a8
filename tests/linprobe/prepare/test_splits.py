"""Splits by patient: disjoint, in proportion, the same everywhere."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linprobe.prepare.spec import BScan
from linprobe.prepare.splits import SPLITS, divide
from retfiner.common.errors import InputError

OCTDL = {"AMD": 1231, "DME": 147, "ERM": 155, "NO": 332, "RAO": 22, "RVO": 101, "VID": 76}
HALF = (0.5, 0.25, 0.25)


def read_nothing():
    raise AssertionError("nothing is read to divide a data set")


def bscan(name, label, patient, split=None):
    return BScan(name, label, patient, f"{name}.jpg", read_nothing, split)


def cohort(counts, per_patient, seed=0, mixed=0.0):
    """Patients with one to ``2 * per_patient - 1`` images, some of them of another class."""
    rng = np.random.default_rng(seed)
    made = []
    for label, count in counts.items():
        left = count
        while left > 0:
            n = min(left, int(rng.integers(1, 2 * per_patient)))
            patient = f"{label}{len(made)}"
            for k in range(n):
                other = label if rng.random() >= mixed else str(rng.choice(list(counts)))
                made.append(bscan(f"{patient}_{k}", other, patient))
            left -= n
    return made


def shares_of(bscans, splits):
    counts = defaultdict(Counter)
    for b, split in zip(bscans, splits, strict=True):
        counts[b.label][split] += 1
        counts["all"][split] += 1
    return {
        label: tuple(count[split] / count.total() for split in SPLITS)
        for label, count in counts.items()
    }


def patients_by_split(bscans, splits):
    found = defaultdict(set)
    for b, split in zip(bscans, splits, strict=True):
        found[split].add(b.patient)
    return found


def assert_disjoint(bscans, splits):
    found = patients_by_split(bscans, splits)
    assert sum(map(len, found.values())) == len(set.union(*found.values()))


@pytest.mark.parametrize("shares", [HALF, (0.4, 0.3, 0.3), (0.7, 0.1, 0.2)])
@pytest.mark.parametrize("mixed", [0.0, 0.1])
def test_octdl_is_divided_in_proportion(shares, mixed):
    bscans = cohort(OCTDL, 2, mixed=mixed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        division = divide(bscans, shares, 0)
    assert_disjoint(bscans, division.splits)
    for label, found in shares_of(bscans, division.splits).items():
        tolerance = 0.01 if label == "all" else 0.07 if label == "RAO" else 0.03
        assert np.abs(np.subtract(found, shares)).max() <= tolerance, (label, found)
    assert division.notes == []
    assert division.rule == "random by patient, stratified by class"


@pytest.mark.parametrize("seed", range(4))
def test_a_few_patients_with_many_images_come_close_to_the_shares(seed):
    """Greedy folds alone leave a class as far as 21 points from its share."""
    shares = (0.4, 0.3, 0.3)
    bscans = cohort(OCTDL, per_patient=20, seed=seed)
    splits = divide(bscans, shares, seed=0).splits
    assert_disjoint(bscans, splits)
    owners = Counter(label for label, _ in {(b.label, b.patient) for b in bscans})
    for label, found in shares_of(bscans, splits).items():
        if label == "all" or owners[label] >= 6:
            assert found == pytest.approx(shares, abs=0.1), label


def test_one_image_a_patient_is_divided_exactly():
    bscans = [bscan(f"{label}{k}", label, f"{label}{k}") for label, n in
              (("AMD", 268), ("Control", 116)) for k in range(n)]  # fmt: skip
    found = shares_of(bscans, divide(bscans, HALF, 3).splits)
    assert found["AMD"] == (134 / 268, 67 / 268, 67 / 268)
    assert found["Control"] == (58 / 116, 29 / 116, 29 / 116)


def test_large_volumes_stay_whole_and_balanced():
    bscans = cohort({"AMD": 800, "DME": 800, "NORMAL": 800}, 30)
    splits = divide(bscans, HALF, 0).splits
    assert_disjoint(bscans, splits)
    for found in shares_of(bscans, splits).values():
        assert np.abs(np.subtract(found, HALF)).max() < 0.08


def test_the_order_of_the_files_does_not_matter_and_the_seed_does():
    bscans = cohort(OCTDL, 3, mixed=0.1)
    order = np.random.default_rng(1).permutation(len(bscans))
    first = divide(bscans, HALF, 0).splits
    again = divide([bscans[k] for k in order], HALF, 0).splits
    assert again == [first[k] for k in order]
    other = divide(bscans, HALF, 1).splits
    assert sum(a != b for a, b in zip(first, other, strict=True)) > len(bscans) / 4


@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_is_in_every_split(seed):
    bscans = cohort({"AMD": 300, "NO": 100}, 3, seed)
    for patient, n in (("r1", 9), ("r2", 1), ("r3", 4)):
        bscans += [bscan(f"{patient}_{k}", "RAO", patient) for k in range(n)]
    splits = divide(bscans, HALF, seed).splits
    assert_disjoint(bscans, splits)
    assert {split for b, split in zip(bscans, splits, strict=True) if b.label == "RAO"} == set(
        SPLITS
    )


def test_a_class_too_rare_for_all_splits_is_in_train_and_that_is_said():
    bscans = [*cohort({"AMD": 100}, 2), bscan("r1", "RAO", "r1")]
    division = divide(bscans, HALF, 0)
    assert division.splits[-1] == "train"
    assert division.notes == [
        "No image of RAO in val: too few patients.",
        "No image of RAO in test: too few patients.",
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("ABC"), min_size=1, max_size=4), min_size=3, max_size=25
    ),
    st.integers(0, 3),
)  # fmt: skip
def test_no_patient_is_ever_in_two_splits_and_none_is_lost(patients, seed):
    bscans = [
        bscan(f"p{p}_{k}", label, f"p{p}")
        for p, labels in enumerate(patients)
        for k, label in enumerate(labels)
    ]
    owners = {label: sum(label in labels for labels in patients) for label in "ABC"}
    rarest = min((n, label) for label, n in owners.items() if n)[1]
    if owners[rarest] < 3:
        return  # a class of one or two patients goes to train first
    splits = divide(bscans, HALF, seed).splits
    assert_disjoint(bscans, splits)
    assert {s for b, s in zip(bscans, splits, strict=True) if b.label == rarest} == set(SPLITS)


def test_unknown_patients_are_divided_by_image_and_that_is_said():
    bscans = [bscan(f"{label}{k}", label, None) for label in ("CSR", "MH") for k in range(40)]
    division = divide(bscans, HALF, 0)
    found = shares_of(bscans, division.splits)
    assert found["CSR"] == found["MH"] == HALF
    assert division.rule == "random by image, stratified by class"
    assert "Patients are not known" in division.notes[0]
    some = [bscan("a", "CSR", "p"), *bscans]
    assert "The patient of 80 images is not known" in divide(some, HALF, 0).notes[0]


def own_split():
    train = [bscan(f"t{p}_{k}", "AB"[p % 2], f"t{p}", "train") for p in range(30) for k in range(3)]
    return train, [bscan(f"e{p}", "AB"[p % 2], f"e{p}", "test") for p in range(6)]


def test_a_split_of_its_own_is_kept_and_val_is_carved_out_of_train():
    train, test = own_split()
    division = divide(train + test, HALF, 0)
    assert set(division.splits[len(train) :]) == {"test"}
    carved = division.splits[: len(train)]
    assert set(carved) == {"train", "val"}
    assert carved.count("val") == len(train) // 3  # 0.25 of 0.5 + 0.25
    assert_disjoint(train + test, division.splits)
    assert division.seeded
    assert division.rule == ("the download's own split; val taken by patient from its training set")


def test_a_complete_split_of_its_own_is_kept_as_it_is():
    train, test = own_split()
    val = [bscan(f"v{p}", "AB"[p % 2], f"v{p}", "val") for p in range(4)]
    division = divide(train + test + val, HALF, 0)
    assert division.splits == ["train"] * len(train) + ["test"] * 6 + ["val"] * 4
    assert not division.seeded
    assert division.rule == "the download's own split"


def test_what_has_no_split_of_its_own_follows_its_patient_or_is_divided():
    train, test = own_split()
    more = [bscan("x", "A", "e0"), *(bscan(f"n{p}", "AB"[p % 2], f"n{p}") for p in range(20))]
    division = divide(train + test + more, HALF, 0)
    assert division.splits[len(train) + 6] == "test"
    assert {"train", "test"} <= set(division.splits[-20:])
    assert_disjoint(train + test + more, division.splits)
    assert "what has none was divided by patient" in division.rule


def test_a_split_of_its_own_that_shares_a_patient_is_an_error():
    train, test = own_split()
    with pytest.raises(InputError, match=r"(?s)shares patients.*1, among them patient t0"):
        divide([*train, *test, bscan("t0_9", "A", "t0", "test")], HALF, 0)


def test_a_split_of_its_own_without_a_training_set_is_an_error():
    with pytest.raises(InputError, match="no training set"):
        divide(own_split()[1], HALF, 0)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_patients_are_an_error(n):
    with pytest.raises(InputError, match="No patient is left for"):
        divide([bscan(f"a{k}_{p}", "A", f"p{p}") for p in range(n) for k in range(9)], HALF, 0)
