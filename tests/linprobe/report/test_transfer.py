"""External validation in the report, against counts by hand and plain loops."""

import numpy as np
import pandas as pd
import pytest

from linprobe.report.build import build_report
from linprobe.report.config import ReportConfig
from linprobe.report.loading import load
from linprobe.report.scores import scored_set
from linprobe.report.transfer import at_thresholds, thresholds, transferred
from retfiner.common.metrics import WeightedSample, make_sample
from tests.helpers.probing_runs import make_predictions, write_predictions

MODELS = ("baseline/M", "refined/M")
CLASSES = ["AMD", "DME", "NORMAL"]


def test_the_lowest_threshold_of_enough_specificity():
    scores = np.array([0.9, 0.8, 0.7, *np.linspace(0.6, 0.1, 19)])
    table = np.stack([scores, 1 - scores], axis=1)
    labels = np.array([0, 1, 0, *[1] * 19])  # 20 of the rest: one of them may lie above
    limits = thresholds(table, labels)
    assert limits[0] == 0.7
    assert limits[1] == pytest.approx(0.4) if (labels == 0).sum() < 20 else True
    sensitivity, specificity = at_thresholds(limits, make_sample(table, labels))
    of_0 = (1.0, 19 / 20)
    called = table[:, 1] >= limits[1]
    of_1 = (called[labels == 1].mean(), (~called[labels == 0]).mean())
    shares = (2 / 22, 20 / 22)
    for found, pair in ((sensitivity, 0), (specificity, 1)):
        expected = shares[0] * of_0[pair] + shares[1] * of_1[pair]
        assert found[0] == pytest.approx(100 * expected)


def test_thresholds_stay_where_they_were_found():
    here = scored_set(make_predictions("m", "A", 0, strength=2).assign(name="m"))
    there = scored_set(make_predictions("m", "BB", 0, strength=2).assign(name="m"))
    found = transferred(here, there, "m", 200, np.random.default_rng(0))
    limits = thresholds(here.probabilities["m"][0], here.labels)
    table = there.probabilities["m"][0]
    sensitivity, specificity = 0.0, 0.0
    for k in range(len(there.classes)):
        own = there.labels == k
        sensitivity += 100 * own.mean() * (table[own, k] >= limits[k]).mean()
        specificity += 100 * own.mean() * (table[~own, k] < limits[k]).mean()
    for (value, (low, high)), expected in zip(found, (sensitivity, specificity), strict=True):
        assert value == pytest.approx(expected)
        assert low < value < high
    again = transferred(here, here, "m", 10, np.random.default_rng(0))
    assert again[0][0] == pytest.approx(here.values("sensitivity", "m")[0])
    assert again[1][0] >= 95


def test_thresholds_go_by_the_class_and_a_model_without_randomness_inside_by_every_seed_outside():
    here = scored_set(make_predictions("m", "A", 0, strength=2).assign(name="m"), CLASSES[::-1])
    outside = [make_predictions("m", "BB", seed, strength=2).assign(name="m") for seed in (0, 1, 2)]
    there = scored_set(pd.concat(outside))
    assert (len(here.probabilities["m"]), len(there.probabilities["m"])) == (1, 3)
    limits = thresholds(here.probabilities["m"][0], here.labels)[::-1]
    expected = [at_thresholds(limits, make_sample(p, there.labels))[0][0]
                for p in there.probabilities["m"]]  # fmt: skip
    found = transferred(here, there, "m", 20, np.random.default_rng(0))
    assert found[0][0] == pytest.approx(np.mean(expected))


def test_a_resample_of_one_class_has_no_specificity():
    table, labels = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([0, 0, 1])
    weights = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 0.0]])
    sample = WeightedSample(table, labels, weights)
    sensitivity, specificity = at_thresholds(np.array([0.5, 0.5]), sample)
    assert sensitivity == pytest.approx([200 / 3, 100 / 3])
    assert specificity[0] == pytest.approx(100 * (2 / 3 * 1 + 1 / 3 * 1 / 2))
    assert np.isnan(specificity[1])


@pytest.fixture
def results(tmp_path):
    for k, model in enumerate(MODELS):
        for data_set, train_set in (("A", ""), ("A_to_B", "A")):
            for seed in (0, 1):
                table = make_predictions(model, data_set, seed, strength=1 + k, n=60)
                if train_set:  # four patients of each class, outside
                    table["patient"] = [str(k % 12) for k in range(60)]
                    keep = table.groupby("patient")["label"].transform("first") == table["label"]
                    table = table[keep]
                table["train_set"] = train_set
                write_predictions(tmp_path / "results", table)
    return tmp_path


def test_external_sets_stand_apart_from_those_that_were_trained_on(results):
    loaded = load(results / "results", [], [MODELS])
    inner, outer, train_sets = loaded.divided()
    assert (inner.data_sets, outer.data_sets) == (["A"], ["A_to_B"])
    assert train_sets == {"A_to_B": "A"}
    config = ReportConfig(base=[MODELS[0]], refined=[MODELS[1]], results=results / "results",
                          output=results / "report", bootstrap=50, swaps=99)  # fmt: skip
    report = build_report(config)
    assert [one.name for one in report.summary.sets] == ["A"]
    text = (results / "report" / "table.md").read_text(encoding="utf-8")
    assert "Sensitivity (%) at the threshold of inside" in text
    outside = text[text.index("95 % interval", text.index("corrected")) :]
    assert "Fewer than 5 of some class" in outside[: outside.index("at the threshold")]
    assert "are needed for p" not in outside, "the mean over external sets is not shown"
    assert (
        "External validation was on B (trained on A), with nothing"
        in (results / "report" / "methods.txt").read_text()
    )
    everything = pd.read_csv(results / "report" / "predictions.csv")
    assert set(everything["data_set"]) == {"A", "A_to_B"}


def test_external_sets_alone_are_the_main_table(results):
    config = ReportConfig(base=[MODELS[0]], refined=[MODELS[1]], results=results / "results",
                          output=results / "report", bootstrap=50, swaps=99,
                          data_set=["A_to_B"])  # fmt: skip
    assert [one.name for one in build_report(config).summary.sets] == ["A_to_B"]
