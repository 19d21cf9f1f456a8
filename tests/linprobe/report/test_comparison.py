"""Pairing: whatever has no partner, or another protocol, is refused by name."""

import dataclasses
import shutil

import pytest
from tests.helpers.probing_runs import make_run, write_tree

from linprobe.report.comparison import check_comparable, load_pairs
from retfiner.common.errors import InputError
from retfiner.common.results import fingerprint, write_run

BASE, REFINED = ["baseline/RETFound"], ["refined/RETFound"]


def other(version="baseline", seed=0, data_set="OCTID", **settings):
    return make_run(version, "RETFound", data_set, seed, strength=1.0, n=20, **settings)


def test_runs_pair_by_data_set_seed_and_fraction(tmp_path):
    write_tree(tmp_path, fractions=(1.0, 0.1), n=20)
    (pair,) = load_pairs(tmp_path, BASE, REFINED)
    assert pair.name == "RETFound"
    assert pair.main_fraction == 1.0
    assert pair.data_sets == ["Duke_iAMD", "OCTID"]
    assert pair.seeds("OCTID") == [0, 1, 2]
    assert set(pair.runs) == {0.1, 1.0}
    for fraction, places in pair.runs.items():
        assert len(places) == 6
        for (data_set, seed), (base, refined) in places.items():
            assert (base.key.version, refined.key.version) == ("baseline", "refined")
            for run in (base, refined):
                assert (run.key.data_set, run.key.seed) == (data_set, seed)
                assert run.train_fraction == fraction


def test_the_largest_share_stands_in_for_all_images(tmp_path):
    write_tree(tmp_path, fractions=(0.5, 0.1), n=20)
    assert load_pairs(tmp_path, BASE, REFINED)[0].main_fraction == 0.5


def test_lists_of_different_length_are_refused(tmp_path):
    with pytest.raises(InputError, match="do not pair up"):
        load_pairs(tmp_path, [*BASE, "baseline/UrFound"], REFINED)


def test_names_tell_pairs_apart(tmp_path):
    write_tree(tmp_path, models=("RETFound", "UrFound"), n=20)
    pairs = load_pairs(tmp_path, BASE * 2, ["refined/RETFound", "refined/UrFound"])
    assert [pair.name for pair in pairs] == ["RETFound", "RETFound to UrFound"]
    pairs = load_pairs(tmp_path, BASE * 2, [REFINED[0], "baseline/RETFound"])
    assert [pair.name for pair in pairs] == [
        "baseline/RETFound to refined/RETFound",
        "baseline/RETFound to baseline/RETFound",
    ]


def test_unpaired_runs_are_named(tmp_path):
    write_tree(tmp_path, n=20)
    shutil.rmtree(tmp_path / "refined/RETFound/OCTID/seed1")
    shutil.rmtree(tmp_path / "baseline/RETFound/Duke_iAMD/seed2")
    with pytest.raises(InputError, match="without a partner") as caught:
        load_pairs(tmp_path, BASE, REFINED)
    assert "baseline/RETFound on OCTID, seed 1" in str(caught.value)
    assert "refined/RETFound on Duke_iAMD, seed 2" in str(caught.value)


def test_several_protocols_are_refused_until_one_is_chosen(tmp_path):
    write_tree(tmp_path, n=20)
    write_tree(tmp_path, n=20, probe="knn")
    with pytest.raises(InputError, match="follow 2 protocols") as caught:
        load_pairs(tmp_path, BASE, REFINED)
    assert "probe=knn" in str(caught.value)
    assert "--fingerprint" in str(caught.value)
    chosen = fingerprint(other(probe="knn").protocol)
    assert chosen[:12] in str(caught.value)
    (pair,) = load_pairs(tmp_path, BASE, REFINED, [chosen[:12]])
    assert {run.settings["probe"] for both in pair.main.values() for run in both} == {"knn"}
    with pytest.raises(InputError, match="has such a fingerprint"):
        load_pairs(tmp_path, BASE, REFINED, ["0000000000"])


def test_one_protocol_with_other_weights_needs_a_choice(tmp_path):
    write_tree(tmp_path, seeds=(0,), n=20)
    newer = [
        other("refined", data_set=name, weights_sha256="v2") for name in ("OCTID", "Duke_iAMD")
    ]
    for run in newer:
        write_run(tmp_path, run)
    with pytest.raises(InputError, match="Several runs could stand for refined/RETFound") as caught:
        load_pairs(tmp_path, BASE, REFINED)
    assert "weights_sha256=v2" in str(caught.value)


def test_settings_that_differ_are_named(tmp_path):
    write_tree(tmp_path, n=20)
    shutil.rmtree(tmp_path / "refined")
    for data_set in ("Duke_iAMD", "OCTID"):
        for seed in range(3):
            write_run(tmp_path, other("refined", seed, data_set, learning_rate=0.5))
    with pytest.raises(InputError, match="Settings differ") as caught:
        load_pairs(tmp_path, BASE, REFINED)
    assert "base learning_rate=0.001; refined learning_rate=0.5" in str(caught.value)


def test_different_data_are_refused():
    base, refined = other(), other("refined")
    check_comparable(base, refined)
    with pytest.raises(InputError, match=r"Settings differ[\s\S]*data_sha256=new"):
        check_comparable(base, other("refined", data_sha256="new"))
    renamed = dataclasses.replace(refined, names=[f"other_{name}" for name in refined.names])
    with pytest.raises(InputError, match="Test images differ"):
        check_comparable(base, renamed)
    reordered = dataclasses.replace(refined, classes=refined.classes[::-1])
    with pytest.raises(InputError, match="Test images differ"):
        check_comparable(base, reordered)
