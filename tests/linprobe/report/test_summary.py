"""The numbers of a report: each computed again from the predictions."""

import numpy as np
import pytest

from linprobe.report.loading import load
from linprobe.report.summary import MEAN, summarise
from linprobe.report.tables import main_table, warnings
from linprobe.statistics import sign_flip_test, signed_rank
from retfiner.common.errors import InputError
from retfiner.common.metrics import METRICS
from tests.helpers.probing_runs import make_predictions, write_predictions, write_tree

PAIR = [("baseline/RETFound", "refined/RETFound")]
NUMBERS = {"scales": {}, "resamples": 200, "swaps": 99, "seed": 0}


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("summary")
    write_tree(folder, data_sets=("Duke_iAMD", "Noor_Eye_Hospital", "OCTID"))
    return summarise(load(folder, [], PAIR), "balanced_accuracy", **NUMBERS)


def test_changes_are_seed_averaged_and_the_mean_is_over_data_sets(summary):
    *single, mean = summary.of_pair(PAIR[0])
    for change, one in zip(single, summary.sets, strict=True):
        base, refined = (one.values("balanced_accuracy", name).mean() for name in PAIR[0])
        assert change.change == pytest.approx(refined - base)
        assert change.interval[0] < change.change < change.interval[1]
    assert mean.data_set == MEAN
    assert mean.change == pytest.approx(np.mean([one.change for one in single]))
    assert mean.p == sign_flip_test([one.change for one in single]) == 0.25  # three data sets
    assert summary.needed == 6
    width = [one.interval[1] - one.interval[0] for one in (*single, mean)]
    assert width[-1] < min(width[:-1])  # three data sets tell more than one


def test_holm_is_over_single_data_sets_and_over_means(summary):
    *single, mean = summary.of_pair(PAIR[0])
    assert mean.p_holm == mean.p
    assert min(one.p_holm for one in single) == pytest.approx(3 * min(one.p for one in single))


def test_the_papers_test_is_a_footnote(summary):
    differences = np.concatenate([
        one.values("balanced_accuracy", PAIR[0][1]) - one.values("balanced_accuracy", PAIR[0][0])
        for one in summary.sets
    ])  # fmt: skip
    assert summary.pooled[PAIR[0]] == signed_rank(differences)


def test_every_metric_has_a_value_and_an_interval(summary):
    rows = summary.metrics
    for one in summary.sets:
        there = rows[(rows["data_set"] == one.name) & (rows["class"] == "")]
        kappa = len(one.classes) == 2
        assert set(there["metric"]) == set(METRICS) - (set() if kappa else {"quadratic_kappa"})
        for row in there.itertuples():
            assert row.value == pytest.approx(one.values(row.metric, row.model).mean())
            assert row.low <= row.value <= row.high, row
        classes = rows[(rows["data_set"] == one.name) & (rows["metric"] == "recall")]
        assert list(classes["class"].unique()) == one.classes
        by_class = classes.groupby("model")["value"].mean()
        for name in PAIR[0]:
            assert by_class[name] == pytest.approx(one.values("balanced_accuracy", name).mean())


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    write_tree(tmp_path, n=30)
    first, again = (summarise(load(tmp_path, [], PAIR), "auroc", **NUMBERS) for _ in range(2))
    assert first.changes == again.changes


def test_ranks_and_pairs_of_several_models(tmp_path):
    for data_set in ("Duke_iAMD", "OCTID"):
        for model, strength in (("a", 1.0), ("b", 2.0), ("c", 4.0)):
            table = make_predictions(model, data_set, 0, strength=strength)
            write_predictions(tmp_path, table)
    loaded = load(tmp_path, [], [("a", "b"), ("a", "c")])
    summary = summarise(loaded, "balanced_accuracy", **NUMBERS)
    assert summary.ranks == {"a": 3.0, "b": 2.0, "c": 1.0}
    assert summary.critical > 1
    assert set(summary.pairwise) == {("a", "b"), ("a", "c"), ("b", "c")}
    [*_, alone] = summary.of_pair(("a", "b"))
    together = summary.pairwise["a", "b"].interval  # holds for all three pairs, so it is wider
    assert together[0] < alone.interval[0] < alone.interval[1] < together[1]
    table = main_table(summary, {})
    assert table.columns[2:4] == ("a", "Model")  # the base is one, the blocks name the others
    change = summary.pairwise["b", "c"]
    assert change.change == pytest.approx(
        summary.scores["c", MEAN].mean - summary.scores["b", MEAN].mean
    )
    assert summarise(loaded, "loss", **NUMBERS).ranks == summary.ranks  # lower is better
    assert summary.needed == 7  # of two comparisons, Holm's correction doubles the smaller p
    assert summary.lowest == 4 / 100  # the least p of 99 swaps, in one of four tests


def test_a_metric_that_exists_nowhere_is_refused(tmp_path):
    write_tree(tmp_path, data_sets=("OCTID",), n=20)
    with pytest.raises(InputError, match="--ordered"):
        summarise(load(tmp_path, [], PAIR), "quadratic_kappa", **NUMBERS)


def test_chance_stands_beside_each_score(summary):
    assert summary.chance_on("OCTID") == pytest.approx(20.0)
    assert summary.chance_on(MEAN) == pytest.approx((50 + 100 / 3 + 20) / 3)


def test_where_every_resample_agrees_there_is_no_interval_and_that_is_said(tmp_path):
    for model in ("a", "b"):
        write_predictions(tmp_path, make_predictions(model, "OCTID", 0, strength=50.0, n=20))
        write_predictions(tmp_path, make_predictions(model, "OCTDL", 0, strength=1.0, n=40))
    found = summarise(load(tmp_path, [], [("a", "b")]), "balanced_accuracy", **NUMBERS)
    one = {change.data_set: change.interval for change in found.changes}
    assert one["OCTID"] is None and one["OCTDL"] is not None and one[MEAN] is not None
    assert found.scores["a", "OCTID"].mean == 100.0
    assert found.scores["a", "OCTID"].interval is None
    assert [note for note in warnings(found) if note.startswith("No interval on OCTID: every")]
    lines = {line.cells[0]: line.cells for line in main_table(found, {}).lines}
    assert lines["OCTID"][5] == "–"


def test_tasks_on_the_same_images_are_one_data_set(tmp_path):
    """Seven columns of one table would give p = 2 / 2^7 otherwise, of the same patients."""
    tasks = ["OLIVES", *(f"OLIVES_{k}" for k in range(5)), "OCTID"]
    for model, strength in (("a", 0.0), ("b", 3.0)):
        for task in tasks:
            table = make_predictions(model, task, 0, strength=strength, n=40)
            if task != "OCTID":
                table["image"] = [f"AMD/{k}.png" for k in range(40)]
            write_predictions(tmp_path, table)
    loaded = load(tmp_path, [], [("a", "b")])
    assert loaded.owners == {name: "OCTID" if name == "OCTID" else "OLIVES" for name in tasks}
    found = summarise(loaded, "balanced_accuracy", **NUMBERS)
    mean = found.changes[-1]
    assert all(change.change > 0 for change in found.changes)
    assert mean.p == 0.5, "two data sets: the signs of both, or of neither"
    assert (found.independent, found.joined) == (2, [sorted(tasks)[1:]])
    told = warnings(found)
    assert (
        told[0].startswith("OLIVES, OLIVES_0, OLIVES_1") and "With 2 data sets no test" in told[1]
    )


def test_the_mean_of_a_task_and_its_twin_is_no_surer_than_the_task(tmp_path):
    """Drawn by themselves, twice the same patients would tell as much as twice as many."""
    for model, strength in (("a", 0.5), ("b", 1.0)):
        for task in ("OLIVES_x", "OLIVES_y"):
            table = make_predictions(model, "OCTID", 0, strength=strength, n=60)
            write_predictions(tmp_path, table.assign(data_set=task))
    found = summarise(load(tmp_path, [], [("a", "b")]), "balanced_accuracy", **NUMBERS)
    one, twin, mean = (np.ptp(change.interval) for change in found.changes)
    assert one == pytest.approx(twin)
    assert mean == pytest.approx(one, rel=0.05)
    rows = found.metrics.set_index(["data_set", "model", "metric", "class"])["low"]
    assert rows[MEAN, "a", "brier", ""] == pytest.approx(
        rows["OLIVES_x", "a", "brier", ""], rel=0.1
    )


def test_images_that_are_called_alike_do_not_make_one_data_set(tmp_path):
    for data_set in ("Duke_iAMD", "OCTID"):
        table = make_predictions("a", data_set, 0, strength=1.0, n=20)
        table["image"] = [f"AMD/{k}.png" for k in range(20)]
        write_predictions(tmp_path, table)
    assert len(set(load(tmp_path, [], [], ["a"]).owners.values())) == 2
