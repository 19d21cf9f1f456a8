"""A sweep as a whole: results, what is skipped, every kind of probe, bad input."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from tests.helpers.disk import no_file_larger_than
from tests.helpers.probing_data import CLASSES, small_probe, write_data_set
from tests.helpers.refinement import write_base_model

from linprobe.datasets import read_data_set
from linprobe.probing import run_sweep
from retfiner.common.classification.metrics import compute_metric
from retfiner.common.errors import InputError
from retfiner.common.results import read_run, read_runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    config = small_probe(folder)
    return config, run_sweep(config)


@pytest.fixture
def copy(finished, tmp_path):
    """Give the finished sweep's material, to be added to and damaged."""
    for name in ("data", "features", "results", "base.pth"):
        source, target = finished[0].results.parent / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return small_probe(tmp_path)


def places(config):
    return sorted(
        p.parent.relative_to(config.results) for p in config.results.rglob("metrics.json")
    )


def test_each_seed_leaves_a_whole_run(finished):
    config, (path, [summary]) = finished
    assert path == "baseline/RETFound"
    runs = read_runs(config.results, path, features=True)
    assert [run.key.seed for run in runs] == [0, 1]
    for run in runs:
        assert {p.name for p in run.folder.iterdir()} == {
            "metrics.json", "predictions.npz", "learning_curve.csv", "head.pth"
        }  # fmt: skip
        assert run.classes == list(CLASSES)
        assert run.names[0].startswith("AMD/P2")
        assert set(run.patients) <= set(map(str, range(len(run.names))))  # numbers, no names
        assert run.metrics["bootstrap"]["unit"] == "patient"
        assert run.context["batch_size"] == 4  # the largest power of two in a quarter of 24
        assert run.context["views"] == 4
    assert (runs[0].features.dtype, runs[0].features.shape) == (np.float16, (16, 96))
    assert runs[1].features is None
    assert summary.scores == [run.metrics["values"]["balanced_accuracy"] for run in runs]
    assert np.mean(summary.scores) > 0.5  # a third is chance


def test_the_written_head_gives_the_written_predictions(finished):
    config, (path, _) = finished
    run = read_runs(config.results, path, features=True)[0]
    head = torch.load(run.folder / "head.pth", weights_only=True)
    logits = torch.from_numpy(run.features).float() @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(logits.softmax(1), run.probabilities, atol=2e-2)  # float16 features
    assert head["classes"] == list(CLASSES)
    labels = read_data_set(config.data_root / "OCTID").splits["test"].labels
    np.testing.assert_array_equal(run.labels, labels)
    assert run.metrics["values"]["f1"] == pytest.approx(
        compute_metric("f1", run.probabilities, labels)
    )


def test_settings_tell_weights_data_and_protocol_apart(finished):
    config, (path, _) = finished
    run = read_runs(config.results, path)[0]
    assert run.settings["representation_method"] == "concat_prenorm"
    assert not {"seed", "results", "device", "init_weights"} & run.settings.keys()
    assert {key for key in run.settings if key.startswith(("weights", "data"))} == {
        "weights_sha256", "data_sha256"
    }  # fmt: skip


def test_a_finished_run_is_skipped_and_only_the_rest_runs(copy):
    before = {p: (copy.results / p / "metrics.json").stat().st_mtime_ns for p in places(copy)}
    shutil.rmtree(copy.results / "baseline/RETFound/OCTID/seed1")
    _, [summary] = run_sweep(dataclasses.replace(copy, seed=[0, 1, 2]))
    assert summary.skipped == 1
    assert [p.name for p in places(copy)] == ["seed0", "seed1", "seed2"]
    seed0 = copy.results / "baseline/RETFound/OCTID/seed0"
    assert (seed0 / "metrics.json").stat().st_mtime_ns in before.values()


def test_a_rerun_gives_the_same_numbers(copy, finished):
    shutil.rmtree(copy.results)
    shutil.rmtree(copy.feature_store)
    _, [again] = run_sweep(dataclasses.replace(copy, inference_batch_size=5))
    assert again.scores == finished[1][1][0].scores


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 2e-3},
        {"views": 3},
        {"representation_method": "cls_token"},
        {"weight_decay": 0.0},
        {"probe": "knn", "views": None},
        {"probe": "logistic", "views": None, "logistic_c": [0.1]},
        {"train_fraction": [0.5]},
    ],
)
def test_a_changed_setting_runs_anew_beside_it(copy, change):
    before = {p: (copy.results / p / "metrics.json").read_bytes() for p in places(copy)}
    run_sweep(dataclasses.replace(copy, seed=[0], **change))
    after = places(copy)
    [new] = set(after) - before.keys()
    assert new.name.startswith("seed0-")
    assert all((copy.results / p / "metrics.json").read_bytes() == c for p, c in before.items())


def test_changed_data_or_weights_run_anew(copy):
    image = next((copy.data_root / "OCTID" / "train" / "AMD").iterdir())
    image.rename(image.parents[1] / "DME" / image.name)
    run_sweep(dataclasses.replace(copy, seed=[0]))
    write_base_model(copy.init_weights, seed=5)
    run_sweep(dataclasses.replace(copy, seed=[0]))
    assert len([p for p in places(copy) if p.name.startswith("seed0")]) == 3


def test_base_and_refined_differ_in_their_weights_alone(copy):
    refined = write_base_model(copy.results.parent / "refined.pth", seed=3)
    path, _ = run_sweep(dataclasses.replace(copy, ft_weights=refined))
    assert path == "refined/RETFound"
    [base, *_] = read_runs(copy.results, "baseline/RETFound")
    [other, *_] = read_runs(copy.results, path)
    differing = {k for k in base.settings if base.settings[k] != other.settings[k]}
    assert differing == {"weights_sha256"}
    assert base.names == other.names
    assert not np.array_equal(base.probabilities, other.probabilities)


def test_names_of_folders_can_be_chosen(copy):
    path, _ = run_sweep(dataclasses.replace(copy, seed=[7], version="trial", model="mine"))
    assert path == "trial/mine"
    assert (copy.results / "trial/mine/OCTID/seed7/head.pth").is_file()


@pytest.mark.parametrize("probe", ["knn", "logistic"])
def test_other_probes_learn_from_the_same_features(copy, probe):
    path, [summary] = run_sweep(dataclasses.replace(copy, probe=probe, views=None, model=probe))
    assert min(summary.scores) > 0.5
    runs = read_runs(copy.results, path)
    np.testing.assert_array_equal(runs[0].probabilities, runs[1].probabilities)  # nothing random
    assert runs[0].settings.keys() >= {"neighbours" if probe == "knn" else "logistic_c"}


def test_fractions_are_drawn_anew_by_each_seed(copy):
    config = dataclasses.replace(
        copy, train_fraction=[0.25, 1.0], probe="knn", views=None, neighbours=3
    )
    path, summaries = run_sweep(config)
    assert [s.fraction for s in summaries] == [0.25, 1.0]
    runs = [r for r in read_runs(copy.results, path) if r.settings["probe"] == "knn"]
    part = [run for run in runs if run.train_fraction == 0.25]
    assert {run.context["images_trained_on"] for run in part} == {6}  # a patient of two a class
    assert not np.array_equal(part[0].probabilities, part[1].probabilities)


def test_fresh_augmentation_each_epoch_stays_close_to_stored_views(tmp_path):
    """Bounds the difference on a task of many test images, averaged over five seeds."""
    counts = {"train": 24, "val": 24, "test": 240}
    write_data_set(tmp_path / "data" / "OCTID", counts, CLASSES[:2])
    write_base_model(tmp_path / "base.pth")
    short = {"patience": 10, "patience_start": 10, "bootstrap": 0}
    config = small_probe(tmp_path, seed=[0, 1, 2, 3, 4], views=16, **short)
    _, [stored] = run_sweep(config)
    slow = dataclasses.replace(config, views=None, online_augmentation=True, model="online")
    path, [online] = run_sweep(slow)
    assert abs(np.mean(stored.scores) - np.mean(online.scores)) < 0.03
    run = read_runs(config.results, path)[0]
    assert run.settings["online_augmentation"] is True
    assert run.context["views"] is None
    assert len(list(config.feature_store.iterdir())) == 16 + 2  # fresh features are not kept


def test_a_class_that_training_never_saw_is_said_not_a_crash(copy):
    shutil.rmtree(copy.data_root / "OCTID" / "train" / "AMD")
    for probe, views in (("linear", 4), ("knn", None), ("logistic", None)):
        config = dataclasses.replace(copy, probe=probe, views=views, model=f"no-{probe}")
        path, [summary] = run_sweep(config)
        assert summary.notes == ["No image of AMD in train."]
        run = read_runs(copy.results, path)[0]
        assert run.classes == list(CLASSES)
        assert run.metrics["recall"]["AMD"] == 0


def test_earlier_data_sets_are_kept_when_a_later_one_fails(copy):
    write_data_set(copy.data_root / "Zeta")
    broken = next((copy.data_root / "Zeta" / "test" / "DME").iterdir())
    broken.write_bytes(b"no image")
    config = dataclasses.replace(copy, model="both", data_set=["OCTID", "Zeta"])
    with pytest.raises(InputError, match=broken.name):
        run_sweep(config)
    assert {p.parts[2] for p in places(copy) if "both" in p.parts} == {"OCTID"}
    shutil.rmtree(copy.data_root / "Zeta")
    write_data_set(copy.data_root / "Zeta")
    _, [first, second] = run_sweep(config)
    assert (first.skipped, second.skipped) == (2, 0)


def test_a_batch_larger_than_the_data_is_refused(copy):
    with pytest.raises(InputError, match="more than there are training images"):
        run_sweep(dataclasses.replace(copy, batch_size=25))


def test_a_damaged_result_is_named_not_replaced(copy):
    metrics = copy.results / "baseline/RETFound/OCTID/seed0/metrics.json"
    content = json.loads(metrics.read_text())
    content["settings"]["learning_rate"] = 0.5
    metrics.write_text(json.dumps(content))
    with pytest.raises(InputError, match=str(metrics)):
        run_sweep(copy)


def files(folder):
    return {path: path.stat().st_size for path in folder.rglob("*")}


def test_a_full_disk_is_a_clear_error_and_earlier_results_stay(copy):
    config = dataclasses.replace(copy, seed=[0, 1, 2])
    before = files(copy.results), files(copy.feature_store)
    with (
        no_file_larger_than(1500),
        pytest.raises(InputError, match=r"cannot be written(.|\n)*again"),
    ):
        run_sweep(config)
    with no_file_larger_than(1500), pytest.raises(InputError, match=r"cannot be stored(.|\n)*room"):
        run_sweep(dataclasses.replace(config, views=6))
    assert (files(copy.results), files(copy.feature_store)) == before
    assert run_sweep(config)[1][0].skipped == 2
    assert read_run(copy.results / "baseline/RETFound/OCTID/seed2").key.seed == 2
