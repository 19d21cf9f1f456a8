"""Scores of several models on the same images, against plain loops over resamples and swaps."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from linprobe.report.scores import scored_set
from retfiner.common.errors import InputError
from tests.helpers.probing_runs import make_predictions


def predictions(*models, seeds=(0, 1), data_set="Noor_Eye_Hospital", n=60, **columns):
    return pd.concat(
        make_predictions(model, data_set, seed, strength=1 + k, n=n, **columns).assign(name=model)
        for k, model in enumerate(models)
        for seed in seeds
    )


def test_values_are_scikit_learns_whatever_the_order_of_rows():
    table = predictions("a", "b").sample(frac=1.0, random_state=0)
    one = scored_set(table)
    for model in ("a", "b"):
        for seed, value in enumerate(one.values("balanced_accuracy", model)):
            rows = table[(table["name"] == model) & (table["seed"] == seed)]
            scores = rows[[f"p_{name}" for name in one.classes]].to_numpy()
            predicted = np.array(one.classes)[scores.argmax(1)]
            assert value == pytest.approx(
                100 * sk.balanced_accuracy_score(rows["label"], predicted)
            )


def test_draws_resample_patients_together_for_all_models():
    one = scored_set(predictions("a", "b", n=20))
    found = one.draws(["balanced_accuracy", "recall/AMD"], 300, np.random.default_rng(0))
    assert set(found["balanced_accuracy"]) == {"a", "b"}
    assert one.n_units == 10
    assert one.units_of_classes == [4, 5, 6]
    # Each draw must be the score of whole patients: two images each, counted equally often.
    rng, expected = np.random.default_rng(0), []
    drawn = rng.integers(10, size=(300, 10))
    unit = np.unique(one.units, return_inverse=True)[1]
    for row in drawn:
        images = np.concatenate([np.flatnonzero(unit == u) for u in row])
        labels = one.labels[images]
        if len(set(labels)) < 3:
            continue
        scores = [100 * sk.balanced_accuracy_score(labels, p[images].argmax(1))
                  for p in one.probabilities["b"]]  # fmt: skip
        expected.append(np.mean(scores))
    np.testing.assert_allclose(found["balanced_accuracy"]["b"], expected)
    recall = one.observed(["recall/AMD"], "a")["recall/AMD"]
    hits = [(p.argmax(1) == 0)[one.labels == 0].mean() for p in one.probabilities["a"]]
    assert recall == pytest.approx(100 * np.mean(hits))


def test_a_model_without_randomness_counts_once():
    table = predictions("a", seeds=(0,))
    again = pd.concat([table, table.assign(seed=1), table.assign(seed=2)])
    one = scored_set(pd.concat([again, predictions("b")]))
    assert one.probabilities["a"].shape[0] == 1
    assert one.probabilities["b"].shape[0] == 2
    assert 0 < one.p_value("auroc", ("a", "b"), 99, np.random.default_rng(0)) <= 1


def test_swapping_finds_a_clear_difference_and_none_with_itself():
    table = predictions("a", "b", "c", n=200)
    one = scored_set(table)
    assert one.p_value("balanced_accuracy", ("a", "c"), 999, np.random.default_rng(0)) < 0.01
    same = scored_set(pd.concat([table[table.name == "a"],
                                 table[table.name == "a"].assign(name="d")]))  # fmt: skip
    assert same.p_value("balanced_accuracy", ("a", "d"), 199, np.random.default_rng(0)) == 1.0


def test_what_is_drawn_where_patients_are_missing():
    table = predictions("a", n=20)
    missing = table.assign(patient=[p if int(p) else "" for p in table["patient"]])
    one = scored_set(missing)
    assert (one.unit, one.without_patient, one.n_units) == ("patient", 2, 11)
    volumes = table.assign(patient="", volume=[f"v{p}" for p in table["patient"]])
    assert (scored_set(volumes).unit, scored_set(volumes).n_units) == ("volume", 10)
    assert scored_set(table.assign(patient="")).unit == "image"


def test_patients_that_one_model_knows_are_drawn_for_all():
    table = predictions("a", "b", n=20, sex="F")
    ours, theirs = (table[table["name"] == name] for name in "ab")
    for others in (theirs.assign(patient="", sex=""), theirs.assign(patient="P" + theirs.patient)):
        one = scored_set(pd.concat([others, ours]))
        assert (one.unit, one.n_units, set(one.groups["sex"])) == ("patient", 10, {"F"})
    apart = theirs.assign(patient=theirs["image"])
    with pytest.raises(InputError, match="Patients of Noor_Eye_Hospital differ"):
        scored_set(pd.concat([ours, apart]))


def test_ordered_classes_are_said_and_needed_for_kappa():
    table = predictions("a")
    assert np.isnan(scored_set(table).values("quadratic_kappa", "a")).all()
    order = ["NORMAL", "DME", "AMD"]
    one = scored_set(table, order)
    rows = table[table["seed"] == 0].sort_values("image")
    scores = rows[[f"p_{name}" for name in order]].to_numpy()
    expected = sk.cohen_kappa_score(
        [order.index(label) for label in rows["label"]], scores.argmax(1), weights="quadratic"
    )
    assert one.values("quadratic_kappa", "a")[0] == pytest.approx(100 * expected)
    with pytest.raises(InputError, match="all of AMD, DME, NORMAL"):
        scored_set(table, ["AMD", "DME"])


def test_other_images_are_refused():
    table = predictions("a", "b")
    rows = table[table["name"] == "b"].assign(image=lambda t: "x" + t["image"])
    with pytest.raises(InputError, match="Test images of Noor_Eye_Hospital differ"):
        scored_set(pd.concat([table[table["name"] == "a"], rows]))
