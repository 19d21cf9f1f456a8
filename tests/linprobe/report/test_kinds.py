"""Grades, several labels and values in one report with classes, each by its own metric."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from linprobe.report.build import build_report
from linprobe.report.config import ReportConfig
from linprobe.report.scores import scored_set
from retfiner.common.bootstrap import bootstrap_interval
from retfiner.common.errors import InputError
from retfiner.common.predictions import make_table, read_table
from tests.helpers.probing_runs import make_predictions

N = 60
LABELS = ("IRF", "SRF", "PED")


def outputs(kind, model, seed):
    """Draw what a model says; ``good`` is nearer to the truth."""
    truths = np.random.default_rng(len(kind))
    rng = np.random.default_rng([seed, *model.encode()])
    noise = 1.0 if model == "good" else 3.0
    if kind == "regression":
        truth = truths.normal(270, 50, N)
        return truth, (truth + 20 * noise * rng.normal(size=N))[:, None], ["thickness"]
    if kind == "multilabel":
        truth = (truths.random((N, 3)) < [0.5, 0.4, 0.3]).astype(int)
        return truth, 1 / (1 + np.exp(-(2 * truth - 1 + noise * rng.normal(size=(N, 3))))), LABELS
    truth = np.arange(N) % 12 % 5
    steps = -abs(np.arange(5) - truth[:, None]) + 0.5 * noise * rng.normal(size=(N, 5))
    scores = np.exp(steps) / np.exp(steps).sum(axis=1, keepdims=True)
    return truth, scores, [str(k) for k in range(5)]


def table(kind, model, seed):
    truth, scores, classes = outputs(kind, model, seed)
    about = {"patient": [f"p{k // 2}" for k in range(N)], "image": [f"{k:02d}" for k in range(N)]}
    return make_table(scores, truth, classes, task=kind, model=model, seed=seed,
                      data_set=f"D_{kind}", weights=model, probe="linear", train_images=100,
                      **about)  # fmt: skip


def every(kinds, models=("base", "good")):
    tables = [table(kind, model, seed) for kind in kinds for model in models for seed in (0, 1)]
    for model, strength in zip(models, (1.0, 3.0), strict=True):
        tables.append(make_predictions(model, "OCTID", 0, strength=strength, n=N, weights=model))
    return pd.concat(tables)


def named(kind, model):
    return pd.concat([table(kind, model, seed).assign(name=model) for seed in (0, 1)])


def test_scores_and_intervals_of_values_are_those_of_plain_loops_by_patient():
    one = scored_set(named("regression", "good"))
    predicted = [outputs("regression", "good", seed)[1][:, 0] for seed in (0, 1)]
    for metric, oracle in (("r2", sk.r2_score), ("mae", sk.mean_absolute_error)):
        expected = [oracle(one.labels, each) for each in predicted]
        np.testing.assert_allclose(one.values(metric, "good"), expected)
    drawn = one.draws(["r2", "mae"], 200, np.random.default_rng(0))
    units = np.unique(one.units, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    by_hand = []
    for row in rng.integers(N // 2, size=(200, N // 2)):
        images = np.concatenate([np.flatnonzero(units == unit) for unit in row])
        by_hand.append(np.mean([sk.mean_absolute_error(one.labels[images], each[images])
                                for each in predicted]))  # fmt: skip
    np.testing.assert_allclose(drawn["mae"]["good"], by_hand)
    assert one.units_of_classes == [N // 2]
    low, high = bootstrap_interval(np.array(by_hand), [one.drawn])
    assert low < one.values("mae", "good").mean() < high
    assert not one.exists("auroc") and np.isnan(one.values("auroc", "good")).all()


def test_several_labels_are_averaged_and_each_has_its_own_line():
    one = scored_set(named("multilabel", "good"))
    truth, scores, _ = outputs("multilabel", "good", 0)
    order = [LABELS.index(name) for name in one.classes]
    np.testing.assert_array_equal(one.labels, truth[:, order])
    assert one.values("auroc", "good")[0] == pytest.approx(100 * sk.roc_auc_score(truth, scores))
    each = one.observed(["auroc/IRF"], "good")["auroc/IRF"]
    mean = np.mean([sk.roc_auc_score(truth[:, 0], outputs("multilabel", "good", s)[1][:, 0])
                    for s in (0, 1)])  # fmt: skip
    assert each == pytest.approx(100 * mean)
    rarest = min(truth.sum(axis=0))
    assert one.units_of_classes[0] <= rarest


def test_grades_have_the_order_of_their_numbers():
    rows = named("ordinal", "good")
    shuffled = rows[[n for n in rows if n[:2] != "p_"] + [f"p_{k}" for k in (3, 0, 4, 2, 1)]]
    one = scored_set(shuffled)
    assert one.classes == ["0", "1", "2", "3", "4"] and one.ordered
    truth, scores, _ = outputs("ordinal", "good", 1)
    expected = sk.cohen_kappa_score(truth, scores.argmax(1), weights="quadratic")
    assert one.values("quadratic_kappa", "good")[1] == pytest.approx(100 * expected)


def test_one_report_has_a_table_of_each_kind(tmp_path):
    place = tmp_path / "predictions.csv"
    every(("ordinal", "multilabel", "regression")).to_csv(place, index=False)
    report = build_report(
        ReportConfig(base=["base"], refined=["good"], results=tmp_path / "none", bootstrap=100,
                     predictions=[place], output=tmp_path / "out", swaps=99)
    )  # fmt: skip
    changes = pd.read_csv(tmp_path / "out" / "changes.csv").set_index("data_set")
    assert changes["metric"].drop_duplicates().tolist() == [
        "balanced_accuracy", "quadratic_kappa", "auroc", "r2"
    ]  # fmt: skip
    assert (changes.loc[["D_ordinal", "D_multilabel", "D_regression"], "change"] > 0).all()
    thick = changes.loc["D_regression"]
    predicted = [outputs("regression", "good", seed)[1][:, 0] for seed in (0, 1)]
    truth = outputs("regression", "good", 0)[0]
    assert thick["refined_mean"] == pytest.approx(np.mean([sk.r2_score(truth, p)
                                                           for p in predicted]))  # fmt: skip
    assert thick["low"] < thick["change"] < thick["high"] and thick["p"] <= 0.01
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    own = metrics[metrics["data_set"] == "D_regression"].drop_duplicates("metric")
    assert set(own["metric"]) == {"r2", "mae"}
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for said in ("Results: grades", "Results: values", "Mean absolute error", "PED (",
                 "Results: several labels an image"):  # fmt: skip
        assert said in page
    assert len(report.tables) == 4
    again = read_table(tmp_path / "out" / "predictions.csv")
    assert set(again["task"]) == {"", "ordinal", "multilabel", "regression"}


def test_a_metric_of_values_alone_needs_values(tmp_path):
    place = tmp_path / "predictions.csv"
    every(()).to_csv(place, index=False)
    common = {"base": ["base"], "refined": ["good"], "results": tmp_path / "none"}
    with pytest.raises(InputError, match="Mean absolute error exists on none"):
        build_report(ReportConfig(**common, predictions=[place], output=tmp_path / "o",
                                  metric="mae"))  # fmt: skip
    values = every(("regression",))
    values = values[values["task"] == "regression"]
    pd.concat([values, values.assign(data_set="E")]).to_csv(place, index=False)
    with pytest.raises(InputError, match="different units"):
        build_report(ReportConfig(**common, predictions=[place], output=tmp_path / "o",
                                  metric="mae"))  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("regression", {"label": "thick"}, "numbers as labels"),
        ("regression", {"p_other": 1.0}, "one column"),
        ("multilabel", {"label": "IRF|ERM"}, "labels ERM"),
        ("multilabel", {"p_IRF": 1.5}, "not probabilities"),
        ("ordinal", {"label": "7"}, "labels 7"),
        ("ordinal", {"task": "graded"}, "do not fit together"),
    ],
)
def test_tables_that_are_none_of_their_kind_are_refused(tmp_path, kind, change, words):
    place = tmp_path / "a.csv"
    table(kind, "good", 0).assign(**change).to_csv(place, index=False)
    with pytest.raises(InputError, match=words):
        read_table(place)
