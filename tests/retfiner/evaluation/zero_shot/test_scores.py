"""Evaluation of a split: intervals by patient, absent classes, notes."""

import json

import numpy as np
import pytest

from retfiner.common import bootstrap
from retfiner.common.errors import InputError
from retfiner.common.metrics import compute_metric, make_sample
from retfiner.evaluation.zero_shot.scores import SCORED, evaluate, resample_metrics

CLASSES = ["AMD", "DME", "Normal"]


def draw(n=90, seed=0, strength=1.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), labels] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_values_intervals_and_recall():
    probabilities, labels = draw()
    result = evaluate(probabilities, labels, CLASSES, generator=np.random.default_rng(1))
    json.dumps(result, allow_nan=False)
    for name in SCORED:
        assert result["values"][name] == compute_metric(name, probabilities, labels)
        low, high = result["intervals"][name]
        assert low < high
        if name != "ece":  # resampling adds to the calibration error, which cannot be negative
            assert low < result["values"][name] < high
    predicted = probabilities.argmax(1)
    assert result["recall"]["DME"] == pytest.approx((predicted == 1)[labels == 1].mean())
    assert result["support"] == {"AMD": 30, "DME": 30, "Normal": 30}
    assert result["notes"] == []
    assert result["bootstrap"]["unit"] == "image"


def test_same_generator_same_result_and_blocks_change_nothing(monkeypatch):
    probabilities, labels = draw(30)
    results = []
    for block in (bootstrap.BLOCK_ELEMENTS, 7 * 30):
        monkeypatch.setattr(bootstrap, "BLOCK_ELEMENTS", block)
        generator = np.random.default_rng(4)
        results.append(evaluate(probabilities, labels, CLASSES, generator=generator, resamples=50))
    for name, interval in results[0]["intervals"].items():
        assert interval == pytest.approx(results[1]["intervals"][name])
    other = evaluate(
        probabilities, labels, CLASSES, generator=np.random.default_rng(5), resamples=50
    )
    assert other["intervals"]["mcc"] != results[0]["intervals"]["mcc"]


def test_the_interval_of_a_share_is_the_binomial_one():
    # balanced accuracy of 100 images a class at recall 0.8: standard error sqrt(.16 / 200)
    labels = np.repeat([0, 1], 100)
    right = np.tile(np.arange(100) < 80, 2)
    predicted = np.where(right, labels, 1 - labels)
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1)
    result = evaluate(
        probabilities, labels, ["a", "b"], generator=np.random.default_rng(0), resamples=4000
    )
    low, high = result["intervals"]["balanced_accuracy"]
    expected = 1.96 * np.sqrt(0.16 / 200)
    assert low == pytest.approx(0.8 - expected, abs=0.006)
    assert high == pytest.approx(0.8 + expected, abs=0.006)


def test_images_of_one_patient_are_drawn_together():
    # 200 patients with 10 identical images each: sqrt(10) times wider than by image
    rng = np.random.default_rng(0)
    probabilities = np.repeat(draw(200, seed=3)[0], 10, axis=0)
    labels = np.repeat(rng.integers(2, size=200), 10)
    patients = np.repeat([f"p{k}" for k in range(200)], 10).tolist()
    widths = {}
    for unit, given in (("image", None), ("patient", patients)):
        result = evaluate(
            probabilities, labels, CLASSES, generator=np.random.default_rng(0), patients=given
        )
        low, high = result["intervals"]["loss"]
        widths[unit] = high - low
        assert result["bootstrap"]["unit"] == unit
        assert result["bootstrap"]["units"] == (2000 if given is None else 200)
    assert widths["patient"] / widths["image"] == pytest.approx(np.sqrt(10), rel=0.15)


def test_resampling_matches_repeating_the_images():
    probabilities, labels = draw(12)
    drawn, kept = resample_metrics(
        make_sample(probabilities, labels), np.random.default_rng(2), None, 20
    )
    chosen = np.random.default_rng(2).integers(12, size=(20, 12))
    complete = [rows for rows in chosen if len(np.unique(labels[rows])) == 3]
    assert kept == len(complete)
    for name in SCORED:
        naive = [compute_metric(name, probabilities[rows], labels[rows]) for rows in complete]
        assert drawn[name] == pytest.approx(np.array(naive), abs=1e-9)


def test_an_absent_class_is_said():
    probabilities, labels = draw()
    keep = labels != 1
    result = evaluate(
        probabilities[keep], labels[keep], CLASSES, generator=np.random.default_rng(0)
    )
    assert result["recall"]["DME"] is None
    assert result["support"] == {"AMD": 30, "DME": 0, "Normal": 30}
    assert "No test image of DME" in result["notes"][0]
    assert result["intervals"]["auroc"] is not None


def test_resamples_without_a_class_are_counted():
    probabilities, labels = draw(40)
    labels = np.where(np.arange(40) == 0, 0, 1 + np.arange(40) % 2)  # one image of the first class
    result = evaluate(probabilities, labels, CLASSES, generator=np.random.default_rng(0))
    used = result["bootstrap"]["used"]
    assert used == pytest.approx(1000 * (1 - np.exp(-1)), abs=60)
    assert f"{1000 - used} of 1000 bootstrap resamples lacked a class" in result["notes"][0]


@pytest.mark.parametrize("patients", [["one"] * 6, None])
def test_too_few_units_give_no_interval(patients):
    probabilities, _ = draw(6)
    labels = np.array([0, 1, 2, 2, 2, 2]) if patients is None else np.arange(6) % 3
    result = evaluate(
        probabilities, labels, CLASSES, generator=np.random.default_rng(0), patients=patients
    )
    assert set(result["intervals"].values()) == {None}
    assert "Too few patients or images" in result["notes"][-1]


def test_one_class_has_no_auroc_and_says_so():
    probabilities, _ = draw(9)
    result = evaluate(
        probabilities, np.zeros(9, int), CLASSES, generator=np.random.default_rng(0), resamples=20
    )
    assert result["values"]["auroc"] is None
    assert result["intervals"]["auroc"] is None
    assert "AUROC does not exist" in result["notes"][0]
    json.dumps(result, allow_nan=False)


def test_names_and_patients_must_fit():
    probabilities, labels = draw(9)
    generator = np.random.default_rng(0)
    with pytest.raises(InputError, match="Class names and columns"):
        evaluate(probabilities, labels, ["a", "b"], generator=generator)
    with pytest.raises(InputError, match="Class names and columns"):
        evaluate(probabilities, labels, ["a", "b", "b"], generator=generator)
    with pytest.raises(InputError, match="Patients do not fit"):
        evaluate(probabilities, labels, CLASSES, generator=generator, patients=["p"])
