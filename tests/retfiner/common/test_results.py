"""Runs on disk: whole or not at all, never replaced by other settings, damage named."""

import csv
import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from retfiner.common.classification.evaluation import evaluate
from retfiner.common.errors import InputError
from retfiner.common.results import (
    Run,
    RunKey,
    comparable_settings,
    find_finished,
    fingerprint,
    read_run,
    read_runs,
    software_versions,
    write_run,
)
from retfiner.common.results.folders import run_folder

SETTINGS = {"probe": "linear", "weights_sha256": "abc", "train_fraction": 1.0, "lr": 1e-3}
KEY = RunKey("baseline", "RETFound", "OCTDL", 0)


def make_run(seed=0, settings=None, key=None, **changes):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet([1, 1, 1], size=12), np.arange(12) % 3
    classes = ["AMD", "DME", "Normal"]
    run = Run(
        key=key or RunKey("baseline", "RETFound", "OCTDL", seed),
        settings=dict(settings or SETTINGS),
        metrics=evaluate(probabilities, labels, classes, generator=rng, resamples=20),
        classes=classes,
        probabilities=probabilities,
        labels=labels,
        names=[f"scan_{k}.png" for k in range(12)],
        patients=[f"p{k // 2}" for k in range(12)],
        features=rng.normal(size=(12, 4)).astype(np.float16),
        context={"device": "cpu", "weights_path": Path("a/b.pth")},
        versions=software_versions(),
    )
    return dataclasses.replace(run, **changes)


def test_a_run_comes_back_as_it_was_written(tmp_path):
    run = make_run()
    curve = [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": 1.25}]
    folder = write_run(
        tmp_path, run, curve=curve, save_head=lambda path: path.write_bytes(b"weights")
    )
    assert folder == tmp_path / "baseline/RETFound/OCTDL/seed0"
    assert sorted(path.name for path in folder.iterdir()) == [
        "head.pth",
        "learning_curve.csv",
        "metrics.json",
        "predictions.npz",
    ]
    back = read_run(folder)
    assert back.key == run.key
    assert back.settings == run.settings
    assert back.metrics == run.metrics
    assert back.fingerprint == run.fingerprint
    assert back.names == run.names
    assert back.patients == run.patients
    assert back.context == {"device": "cpu", "weights_path": "a/b.pth"}
    assert back.versions["numpy"] == np.__version__
    np.testing.assert_allclose(back.probabilities, run.probabilities, atol=1e-7)
    np.testing.assert_array_equal(back.labels, run.labels)
    np.testing.assert_array_equal(back.features, run.features)
    with (folder / "learning_curve.csv").open() as stream:
        assert [row["loss"] for row in csv.DictReader(stream)] == ["1.5", "1.25"]
    assert read_run(folder, features=False).features is None


def test_optional_parts_may_be_missing(tmp_path):
    folder = write_run(tmp_path, make_run(patients=None, features=None))
    back = read_run(folder)
    assert back.patients is None
    assert back.features is None
    assert not (folder / "head.pth").exists()


def test_the_fingerprint_sees_values_not_their_spelling():
    reference = fingerprint({"a": 1, "b": {"c": [1.0, 2.5], "d": None}})
    assert reference == fingerprint({"b": {"d": None, "c": (1, 2.5)}, "a": 1.0})
    assert reference != fingerprint({"a": True, "b": {"c": [1.0, 2.5], "d": None}})
    assert reference != fingerprint({"a": 2, "b": {"c": [1.0, 2.5], "d": None}})
    assert fingerprint({"a": 1}) == fingerprint({"a": 1})
    assert len(reference) == 64
    for bad in (float("nan"), object()):
        with pytest.raises(InputError, match="cannot be fingerprinted"):
            fingerprint({"a": bad})


def test_which_settings_are_compared():
    settings = SETTINGS | {"data_sha256": "d"}
    assert comparable_settings(settings).keys() == {"probe", "train_fraction", "lr", "data_sha256"}
    assert make_run(settings=settings).protocol == {"probe": "linear", "lr": 1e-3}


def test_finished_only_with_the_same_settings(tmp_path):
    run = make_run()
    assert find_finished(tmp_path, KEY, run.fingerprint) is None
    folder = write_run(tmp_path, run)
    assert find_finished(tmp_path, KEY, run.fingerprint) == folder
    changed = make_run(settings=SETTINGS | {"lr": 1e-2})
    assert find_finished(tmp_path, KEY, changed.fingerprint) is None
    beside = write_run(tmp_path, changed)
    assert beside.name == f"seed0-{changed.fingerprint[:8]}"
    assert beside == run_folder(tmp_path, KEY, changed.fingerprint)
    assert find_finished(tmp_path, KEY, changed.fingerprint) == beside
    assert find_finished(tmp_path, KEY, run.fingerprint) == folder
    assert read_run(folder).settings["lr"] == 1e-3
    assert len(read_runs(tmp_path, "baseline/RETFound")) == 2


def test_writing_a_finished_run_again_leaves_it(tmp_path):
    folder = write_run(tmp_path, make_run())
    before = (folder / "metrics.json").stat().st_mtime_ns
    assert write_run(tmp_path, make_run()) == folder
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == ["seed0"]


def test_a_failed_write_leaves_nothing(tmp_path):
    def disk_full(path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_run(tmp_path, make_run(), save_head=disk_full)
    assert list((tmp_path / KEY.parent).iterdir()) == []


def test_leftovers_of_a_killed_process_are_ignored(tmp_path):
    folder = write_run(tmp_path, make_run())
    leftover = folder.parent / ".seed1-x7f3"
    leftover.mkdir()
    (leftover / "metrics.json").write_text('{"format"')
    (folder.parent / "notes").mkdir()
    assert [run.key.seed for run in read_runs(tmp_path, "baseline/RETFound")] == [0]


def _write_many(root, settings_list, barrier):
    barrier.wait()
    for settings in settings_list:
        write_run(root, make_run(settings=settings))


def test_processes_at_once_corrupt_nothing(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    settings = [SETTINGS | {"lr": rate} for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    barrier = spawn.Barrier(2)
    orders = (settings, settings[::-1])
    workers = [spawn.Process(target=_write_many, args=(tmp_path, o, barrier)) for o in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    runs = read_runs(tmp_path, "baseline/RETFound")
    assert sorted(run.settings["lr"] for run in runs) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    names = {path.name for path in (tmp_path / KEY.parent).iterdir()}
    assert "seed0" in names
    assert len(names) == 6
    assert not any(name.startswith(".") for name in names)


def damage_json(folder):
    (folder / "metrics.json").write_text('{"format": 1, "settings"')


def edit_settings(folder):
    content = json.loads((folder / "metrics.json").read_text())
    content["settings"]["lr"] = 7
    (folder / "metrics.json").write_text(json.dumps(content))


def drop_key(folder):
    content = json.loads((folder / "metrics.json").read_text())
    del content["classes"]
    (folder / "metrics.json").write_text(json.dumps(content))


def truncate_predictions(folder):
    path = folder / "predictions.npz"
    path.write_bytes(path.read_bytes()[:200])


def remove_predictions(folder):
    (folder / "predictions.npz").unlink()


def shorten_labels(folder):
    with np.load(folder / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["labels"] = arrays["labels"][:-1]
    np.savez(folder / "predictions.npz", **arrays)


def pickled_predictions(folder):
    np.savez(folder / "predictions.npz", probabilities=np.array([object()]), labels=0, names=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_json, "metrics cannot be read.*metrics.json"),
        (edit_settings, "settings were changed.*metrics.json"),
        (drop_key, "not complete.*metrics.json"),
        (truncate_predictions, "predictions cannot be read.*predictions.npz"),
        (remove_predictions, "predictions cannot be read.*predictions.npz"),
        (pickled_predictions, "predictions cannot be read.*predictions.npz"),
        (shorten_labels, "contradict one another.*seed0"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    damage(write_run(tmp_path, make_run()))
    with pytest.raises(InputError, match=message):
        read_runs(tmp_path, "baseline/RETFound")


def test_a_folder_copied_to_another_seed_is_refused(tmp_path):
    folder = write_run(tmp_path, make_run())
    folder.rename(folder.with_name("seed3"))
    with pytest.raises(InputError, match="another seed"):
        read_runs(tmp_path, "baseline/RETFound")


def test_an_unknown_model_lists_the_known(tmp_path):
    write_run(tmp_path, make_run())
    (tmp_path / "report" / "figures").mkdir(parents=True)
    for wrong in ("baseline/UrFound", "RETFound", "report/figures"):
        with pytest.raises(InputError) as caught:
            read_runs(tmp_path, wrong)
        if wrong != "report/figures":
            assert "one of: baseline/RETFound\n" in str(caught.value)


def test_a_run_that_contradicts_itself_is_not_written(tmp_path):
    with pytest.raises(InputError, match="contradict"):
        write_run(tmp_path, make_run(patients=["p"]))
    with pytest.raises(InputError, match="contradict"):
        write_run(tmp_path, make_run(labels=np.full(12, 3)))


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", ".."])
def test_names_that_are_no_folder_are_refused(name):
    with pytest.raises(InputError, match="cannot be a folder"):
        RunKey("baseline", "RETFound", name, 0)
