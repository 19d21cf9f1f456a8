"""External data sets: whose classes, which images, what is said."""

import dataclasses

import numpy as np
import pytest

from linprobe.datasets import read_data_set
from linprobe.external import external
from linprobe.probing import run_sweep
from retfiner.common.errors import InputError
from retfiner.common.predictions import find_runs, read_run
from tests.helpers.probing_data import CLASSES, small_probe, write_data_set


@pytest.fixture
def both(tmp_path):
    """Two clinics; the second calls AMD otherwise, has no NORMAL, and has a class more."""
    write_data_set(tmp_path / "A")
    names = ("DME", "DRUSEN_AMD", "VID")
    write_data_set(tmp_path / "B", {"test": 18}, names, seed=7)
    return tmp_path


def test_classes_are_ours_and_what_has_none_is_left_out(both):
    ours, theirs = read_data_set(both / "A"), read_data_set(both / "B", ("test",))
    found = external(ours, theirs, {"DRUSEN_AMD": "AMD"})
    assert (found.name, found.train_set, found.classes) == ("A_to_B", "A", list(CLASSES))
    assert found.splits["train"] is ours.splits["train"]
    for name, label in zip(found.splits["test"].names, found.splits["test"].labels, strict=True):
        assert {"DME": "DME", "DRUSEN_AMD": "AMD"}[name.split("/")[0]] == CLASSES[label]
    assert found.notes == [
        "6 test images of VID are left out: A has no such class.", "No image of NORMAL in B.",
    ]  # fmt: skip
    assert found.sha256 != external(ours, theirs, {"DRUSEN_AMD": "NORMAL"}).sha256


def test_too_few_common_classes_and_wrong_maps_are_errors(both):
    ours, theirs = read_data_set(both / "A"), read_data_set(both / "B", ("test",))
    with pytest.raises(InputError, match="fewer than two classes"):
        external(ours, theirs, {})
    with pytest.raises(InputError, match="that A does not have"):
        external(ours, theirs, {"VID": "vitreous"})
    config = small_probe(both, data_root=both, data_set=["A"], external=["B"], label_map=["X=AMD"])
    with pytest.raises(InputError, match="no external data set has"):
        run_sweep(config)


def test_the_same_head_is_tested_inside_and_outside(both):
    small_probe(both)  # writes the base model
    config = small_probe(
        both, data_root=both, data_set=["A"], external=["B"], label_map=["DRUSEN_AMD=AMD"], seed=[0]
    )
    _, summaries = run_sweep(config)
    assert [summary.data_set for summary in summaries] == ["A", "A_to_B"]
    inside, outside = map(read_run, find_runs(config.results))
    assert "train_set" not in inside[0] and set(outside[0]["train_set"]) == {"A"}
    assert len(outside[0]) == 12 and set(outside[0]["label"]) == {"AMD", "DME"}
    curves = [(path / "learning_curve.csv").read_bytes() for path in find_runs(config.results)]
    assert curves[0] == curves[1]
    assert inside[1]["protocol"] == outside[1]["protocol"]
    assert np.isfinite(summaries[1].scores).all()


def test_the_layout_of_cross_train_and_cross_test(tmp_path):
    small_probe(tmp_path)
    write_data_set(tmp_path / "X_cross_train", {"train": 24, "val": 12})
    write_data_set(tmp_path / "Y_cross_test", {"test": 12}, seed=3)
    config = small_probe(tmp_path, data_root=tmp_path, data_set=[], seed=[0])
    config = dataclasses.replace(config, data_set=["X_cross_train"], external=["Y_cross_test"])
    _, [summary] = run_sweep(config)
    assert summary.data_set == "X_cross_train_to_Y_cross_test"
    with pytest.raises(InputError, match="no test"):
        run_sweep(dataclasses.replace(config, external=[]))
