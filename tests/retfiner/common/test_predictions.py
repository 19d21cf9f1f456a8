"""The table of predictions: exact, whole or not at all, damage named."""

import json
import multiprocessing
import sys

import numpy as np
import pandas as pd
import pytest

from retfiner.common.errors import InputError
from retfiner.common.predictions import (
    classes_of,
    find_runs,
    fingerprint,
    make_table,
    numbered,
    read_about,
    read_run,
    read_table,
    run_folder,
    write_run,
)

SETTINGS = {"probe": "linear", "weights_sha256": "abcdef0123456789", "lr": 1e-3}
CLASSES = ["AMD", "NA", "Normal, dry"]


def predictions(seed=0, **columns):
    rng = np.random.default_rng(seed)
    values = {
        "model": "refined/RETFound",
        "data_set": "OCTDL",
        "seed": seed,
        "weights": "abcdef",
        "image": [f"AMD/{k:03d}.png" for k in range(12)],
        "patient": ["007"] * 12,
    }
    return make_table(rng.dirichlet([1, 1, 1], 12), np.arange(12) % 3, CLASSES, **values | columns)


def about(**settings):
    return {"settings": SETTINGS | settings, "context": {"device": "cpu"}, "notes": ["A note."]}


def test_a_run_comes_back_to_the_last_bit(tmp_path):
    table = predictions()
    folder = write_run(tmp_path, table, about(), {"head.pth": lambda p: p.write_bytes(b"w")})
    place = tmp_path / "refined" / "RETFound-abcdef01" / "OCTDL"
    assert folder == place / f"seed0-{fingerprint(SETTINGS)[:8]}"
    assert {p.name for p in folder.iterdir()} == {"predictions.csv", "run.json", "head.pth"}
    again, found = read_run(folder)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert classes_of(again) == CLASSES
    assert (found["notes"], found["settings"]) == (["A note."], SETTINGS)
    assert find_runs(tmp_path) == [folder]


def test_other_settings_or_weights_lie_beside_it(tmp_path):
    places = {
        write_run(tmp_path, predictions(), about()),
        write_run(tmp_path, predictions(), about(lr=1.0)),
        write_run(tmp_path, predictions(), about(weights_sha256="feedface")),
        write_run(tmp_path, predictions(1), about()),
    }
    assert len(places) == len(find_runs(tmp_path)) == 4
    assert write_run(tmp_path, predictions(), about()) in places  # the same is left as it is


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"needs the package pyarrow(.|\n)*table as a CSV"):
        read_table(tmp_path / "t.parquet")


def test_parquet_and_tables_of_others_are_read(tmp_path):
    pytest.importorskip("pyarrow")  # not among our requirements
    table = predictions()
    bare = table[["model", "data_set", "image", "label", *map("p_{}".format, CLASSES)]]
    bare.to_parquet(tmp_path / "t.parquet")
    bare.to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        found = read_table(tmp_path / name)
        assert set(found["fraction"]) == {1.0} and set(found["train_images"]) == {-1}
        assert found["label"].tolist() == table["label"].tolist()
    both = pd.concat([bare, make_table(np.eye(2), [0, 1], ["x", "y"], model="m", data_set="other",
                                       image=["a", "b"])])  # fmt: skip
    both.to_csv(tmp_path / "both.csv", index=False)
    found = read_table(tmp_path / "both.csv")
    assert classes_of(found[found["data_set"] == "other"]) == ["x", "y"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="label"), "no table of predictions"),
        (lambda t: t[[c for c in t.columns if not c.startswith("p_")]], "no table of predictions"),
        (lambda t: t.assign(label="other"), "labels other"),
        (lambda t: t.assign(p_AMD=2.0), "not probabilities"),
        (lambda t: t.assign(image="one.png"), "stand there twice"),
        (lambda t: t.assign(seed="x"), "cannot be read"),
        (lambda t: t[:0], "no rows"),
    ],
)
def test_bad_tables_are_refused(tmp_path, change, message):
    change(predictions()).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_damage_is_named(tmp_path):
    folder = write_run(tmp_path, predictions(), about())
    path = folder / "run.json"
    content = json.loads(path.read_text())
    for change in ({"settings": SETTINGS | {"lr": 9}}, {"format": 1}, {"notes": "x"}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(InputError, match=str(path)):
            read_about(folder)
    path.write_text(json.dumps(content))
    with (folder / "predictions.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(InputError, match="predictions are missing or were changed"):
        read_run(folder)


def write_once(root, table):
    write_run(root, table, about())


def test_processes_that_write_the_same_run_leave_one(tmp_path):
    context = multiprocessing.get_context("fork")
    twins = [context.Process(target=write_once, args=(tmp_path, predictions())) for _ in range(4)]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join()
    assert [twin.exitcode for twin in twins] == [0] * 4
    assert len(find_runs(tmp_path)) == 1
    assert [p for p in tmp_path.rglob(".*")] == []


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(path):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_run(tmp_path, predictions(), about(), {"head.pth": fail})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_names_that_are_no_folders_are_refused(tmp_path):
    for name in ("", "a//b", ".a", "../x"):
        with pytest.raises(InputError, match="cannot be a folder"):
            run_folder(tmp_path, name, "d", 0, SETTINGS)


def test_fingerprints_and_numbers():
    assert fingerprint({"a": 1, "b": 2.0}) == fingerprint({"b": 2, "a": 1.0})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(InputError, match="cannot be fingerprinted"):
        fingerprint({"a": float("nan")})
    assert numbered(["Miller", "", "Adams", "Miller"]) == ["1", "", "0", "1"]
