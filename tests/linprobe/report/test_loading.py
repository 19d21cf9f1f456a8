"""Which predictions are compared: whatever has no partner, or another protocol, is refused."""

import shutil

import pytest

from linprobe.report.loading import load
from retfiner.common.errors import InputError
from tests.helpers.probing_runs import make_predictions, write_predictions, write_tree

PAIR = [("baseline/RETFound", "refined/RETFound")]


def other(root, model="baseline/RETFound", data_set="OCTID", seed=0, columns=None, **settings):
    table = make_predictions(model, data_set, seed, strength=1.0, n=20, **(columns or {}))
    return write_predictions(root, table, **settings)


def test_all_runs_of_both_models_are_read(tmp_path):
    write_tree(tmp_path, fractions=(1.0, 0.1), n=20)
    loaded = load(tmp_path, [], PAIR)
    assert loaded.names == list(PAIR[0])
    assert (loaded.main_amount, loaded.amounts) == ("", ["0.1 of the training images", ""])
    assert loaded.data_sets == ["Duke_iAMD", "OCTID"]
    assert len(loaded.runs) == 2 * 2 * 2 * 3
    assert len(loaded.at("OCTID", "0.1 of the training images")) == 2 * 3 * 20


def test_the_largest_share_stands_in_for_all_images(tmp_path):
    write_tree(tmp_path, fractions=(0.5, 0.1), n=20)
    assert load(tmp_path, [], PAIR).main_amount == "0.5 of the training images"


def test_a_name_with_two_weights_must_be_told_apart(tmp_path):
    write_tree(tmp_path, n=20, data_sets=("OCTID",))
    for seed in (0, 1, 2):
        other(tmp_path, "refined/RETFound", seed=seed, columns={"weights": "feedfacefeedface"})
    with pytest.raises(
        InputError, match=r"Several models are called refined/RETFound(.|\n)*feedface"
    ):
        load(tmp_path, [], PAIR)
    loaded = load(tmp_path, [], [("baseline/RETFound", "refined/RETFound-feed")])
    assert loaded.names == ["baseline/RETFound", "refined/RETFound"]
    assert set(loaded.table["weights"]) >= {"feedfacefeedface"}


def test_missing_runs_are_named(tmp_path):
    write_tree(tmp_path, n=20)
    shutil.rmtree(next((tmp_path / "refined").glob("RETFound-*")) / "OCTID")
    with pytest.raises(InputError, match="refined/RETFound on OCTID is missing"):
        load(tmp_path, [], PAIR)
    assert load(tmp_path, [], PAIR, data_sets=["Duke_iAMD"]).data_sets == ["Duke_iAMD"]


def test_another_protocol_is_refused_and_can_be_chosen(tmp_path):
    write_tree(tmp_path, n=20)
    other(tmp_path, learning_rate=2e-3)
    with pytest.raises(InputError, match=r"follow 2 protocols(.|\n)*learning_rate=0.002") as caught:
        load(tmp_path, [], PAIR)
    assert "--protocol" in str(caught.value)
    runs = load_chosen(tmp_path)
    assert {run["settings"]["learning_rate"] for run in runs} == {1e-3}


def load_chosen(root):
    from retfiner.common.predictions import find_runs, read_about

    usual = next(
        about["protocol"]
        for about in map(read_about, find_runs(root))
        if about["settings"]["learning_rate"] == 1e-3
    )
    return load(root, [], PAIR, protocols=[usual[:8]]).runs


def test_models_of_several_backbones_differ_in_their_features(tmp_path):
    for seed in (0, 1):
        other(tmp_path, "a", seed=seed)
        other(tmp_path, "b", seed=seed, backbone="VisionFM", weight_decay=0.05)
    assert load(tmp_path, [], [("a", "b")]).names == ["a", "b"]
    other(tmp_path, "b", seed=2, backbone="VisionFM", weight_decay=0.05, learning_rate=1.0)
    with pytest.raises(InputError, match="follow 2 protocols"):
        load(tmp_path, [], [("a", "b")])


def test_another_version_of_the_data_is_refused(tmp_path):
    other(tmp_path, "a")
    other(tmp_path, "b", columns={"data_version": "second"})
    with pytest.raises(InputError, match="different versions of OCTID"):
        load(tmp_path, [], [("a", "b")])


def test_predictions_of_another_model_need_only_a_table(tmp_path):
    write_tree(tmp_path / "r", n=20, data_sets=("OCTID",))
    table = make_predictions("theirs", "OCTID", 0, strength=3.0, n=20)
    scores = [name for name in table.columns if name.startswith("p_")]
    table[["model", "data_set", "image", "label", *scores]].to_csv(tmp_path / "t.csv", index=False)
    loaded = load(tmp_path / "r", [tmp_path / "t.csv"], [*PAIR, ("baseline/RETFound", "theirs")])
    assert loaded.names[-1] == "theirs"
    assert loaded.table["seed"].dtype.kind == "i"  # a seed 0, none of 0.0
    with pytest.raises(InputError, match=r"No predictions of a model(.|\n)*theirs"):
        load(tmp_path / "r", [tmp_path / "t.csv"], [("theirs", "ours")])


def test_two_probes_of_a_model_are_no_second_images(tmp_path):
    """Each runs once where nothing is random: the same seed, and twice as many images."""
    for model in ("a", "b"):
        other(tmp_path, model, columns={"probe": "knn"}, neighbours=20)
        other(tmp_path, model, columns={"probe": "logistic"}, logistic_c=[1.0])
    with pytest.raises(
        InputError, match=r"several predictions of(.|\n)*knn(.|\n)*--protocol"
    ) as told:
        load(tmp_path, [], [("a", "b")])
    assert "80 of 80 rows: a on OCTID, seed 0, b on OCTID, seed 0" in str(told.value)
    chosen = str(told.value).split()[-1]
    assert len(load(tmp_path, [], [("a", "b")], protocols=[chosen]).table) == 40


def test_predictions_that_are_brought_twice_count_once_or_not_at_all(tmp_path):
    other(tmp_path / "r", "a")
    table = make_predictions("a", "OCTID", 0, strength=2.0, n=20)
    table.to_csv(tmp_path / "again.csv", index=False)
    for results, tables in (("r", ["again.csv"]), ("none", ["again.csv", "again.csv"])):
        with pytest.raises(InputError, match="40 of 40 rows: a on OCTID, seed 0"):
            load(tmp_path / results, [tmp_path / name for name in tables], [], ["a"])


def test_shares_that_are_nearly_the_same_stay_two(tmp_path):
    for fraction in (1.0, 0.1234, 0.12341):
        other(tmp_path, "a", columns={"fraction": fraction}, train_fraction=fraction)
    amounts = ["0.1234 of the training images", "0.12341 of the training images", ""]
    assert load(tmp_path, [], [], ["a"]).amounts == amounts


def test_no_data_set_is_called_as_the_mean_is(tmp_path):
    other(tmp_path, "a", data_set="Mean")
    with pytest.raises(InputError, match="A data set is called Mean"):
        load(tmp_path, [], [], ["a"])
