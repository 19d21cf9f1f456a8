"""A sweep as a whole: results, what is skipped, every kind of probe, bad input."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from linprobe.datasets import read_data_set
from linprobe.features import Extractor
from linprobe.probing import run_sweep
from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.common.metrics import compute_metric
from retfiner.common.predictions import find_runs, read_run
from tests.helpers.disk import no_file_larger_than
from tests.helpers.probing_data import CLASSES, small_probe, write_data_set
from tests.helpers.refinement import write_base_model


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
    return [path.relative_to(config.results) for path in find_runs(config.results)]


def runs_of(config, model="baseline/RETFound", **settings):
    """Read the runs of a model that have these settings: predictions, and all about them."""
    runs = [read_run(path) for path in find_runs(config.results)]
    return [
        (table, about) for table, about in runs
        if about["model"] == model and settings.items() <= about["settings"].items()
    ]  # fmt: skip


def scores_of(table):
    return table[[f"p_{name}" for name in CLASSES]].to_numpy()


def test_each_seed_leaves_a_whole_run(finished):
    config, ([model], [summary]) = finished
    assert [about["seed"] for _, about in runs_of(config)] == [0, 1]
    for table, about in runs_of(config):
        assert table["image"][0].startswith("AMD/P2")
        assert set(table["patient"]) == {str(k) for k in range(8)}  # numbers, no names
        assert set(table["eye"]) == {"OD", "OS"}
        assert set(table["train_images"]) == {24} and set(table["train_patients"]) == {12}
        assert about["context"]["batch_size"] == 4  # the largest power of two in a quarter of 24
        assert about["context"]["views"] == 4
        assert about["notes"] == []
    first, second = find_runs(config.results)
    files = {"run.json", "predictions.csv", "learning_curve.csv", "head.pth"}
    assert {path.name for path in first.iterdir()} == files
    assert {path.name for path in second.iterdir()} == files
    assert first.parts[-3] == model.partition("/")[2]
    assert model == f"baseline/RETFound-{file_sha256(config.init_weights)[:8]}"
    labels = read_data_set(config.data_root / "OCTID").splits["test"].labels
    assert summary.scores == [
        compute_metric("balanced_accuracy", scores_of(table), labels)
        for table, _ in runs_of(config)
    ]
    assert np.mean(summary.scores) > 0.5 > summary.chance == pytest.approx(1 / 3)


def test_the_written_head_gives_the_written_predictions(finished):
    config, _ = finished
    folder, (table, _) = find_runs(config.results)[0], runs_of(config)[0]
    head = torch.load(folder / "head.pth", weights_only=True)
    stored = (np.load(path) for path in config.feature_store.glob("*.npy"))
    [features] = [torch.from_numpy(one) for one in stored if one.shape == (16, 96)]
    logits = features @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(logits.softmax(1), scores_of(table), atol=1e-5)
    assert head["classes"] == list(CLASSES)
    labels = read_data_set(config.data_root / "OCTID").splits["test"].labels
    assert table["label"].tolist() == [CLASSES[label] for label in labels]


def test_settings_tell_weights_data_and_protocol_apart(finished):
    config, _ = finished
    _, about = runs_of(config)[0]
    settings = about["settings"]
    assert settings["representation_method"] == "concat_prenorm"
    assert not {"seed", "results", "device", "init_weights"} & settings.keys()
    assert {key for key in settings if key.startswith(("weights", "data"))} == {
        "weights_sha256", "data_sha256"
    }  # fmt: skip


def test_a_finished_run_is_skipped_and_only_the_rest_runs(copy):
    before = {p: (copy.results / p / "run.json").stat().st_mtime_ns for p in places(copy)}
    shutil.rmtree(copy.results / places(copy)[1])
    _, [summary] = run_sweep(dataclasses.replace(copy, seed=[0, 1, 2]))
    assert summary.skipped == 1
    assert [p.name[:5] for p in places(copy)] == ["seed0", "seed1", "seed2"]
    seed0 = places(copy)[0]
    assert (copy.results / seed0 / "run.json").stat().st_mtime_ns == before[seed0]


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
    before = {p: (copy.results / p / "run.json").read_bytes() for p in places(copy)}
    run_sweep(dataclasses.replace(copy, seed=[0], **change))
    after = places(copy)
    [new] = set(after) - before.keys()
    assert new.name.startswith("seed0-")
    assert all((copy.results / p / "run.json").read_bytes() == c for p, c in before.items())


def test_without_stored_views_none_is_recorded(copy):
    run_sweep(dataclasses.replace(copy, seed=[0], views=0, model="plain"))
    [(_, about)] = runs_of(copy, "baseline/plain")
    assert about["context"]["views"] == about["settings"]["views"] == 0


def test_changed_data_or_weights_run_anew(copy):
    image = next((copy.data_root / "OCTID" / "train" / "AMD").iterdir())
    image.rename(image.parents[1] / "DME" / image.name)
    run_sweep(dataclasses.replace(copy, seed=[0]))
    write_base_model(copy.init_weights, seed=5)
    run_sweep(dataclasses.replace(copy, seed=[0]))
    assert len([p for p in places(copy) if p.name.startswith("seed0")]) == 3


def test_base_and_refined_differ_in_their_weights_alone(copy):
    refined = write_base_model(copy.results.parent / "refined.pth", seed=3)
    run_sweep(dataclasses.replace(copy, ft_weights=refined))
    base, other = runs_of(copy)[0], runs_of(copy, "refined/RETFound")[0]
    theirs, ours = other[1]["settings"], base[1]["settings"]
    assert {k for k in ours if ours[k] != theirs[k]} == {"weights_sha256"}
    assert base[0]["image"].equals(other[0]["image"])
    assert not np.array_equal(scores_of(base[0]), scores_of(other[0]))


def test_second_weights_never_land_under_the_name_of_the_first(copy):
    for seed in (3, 4):
        refined = write_base_model(copy.results.parent / f"refined{seed}.pth", seed=seed)
        _, [summary] = run_sweep(dataclasses.replace(copy, ft_weights=refined, seed=[0]))
        assert summary.skipped == 0
    assert len(list((copy.results / "refined").iterdir())) == 2


def test_several_models_by_name(copy):
    other = write_base_model(copy.results.parent / "b.pth", seed=3)
    words = [f"base={copy.init_weights}", f"other={other}"]
    models, summaries = run_sweep(
        dataclasses.replace(copy, init_weights=None, weights=words, seed=[0])
    )
    assert [model.partition("-")[0] for model in models] == ["base", "other"]
    assert [summary.model for summary in summaries] == ["base", "other"]


def test_names_of_folders_can_be_chosen(copy):
    [model], _ = run_sweep(dataclasses.replace(copy, seed=[7], version="trial", model="mine"))
    assert model.startswith("trial/mine-")
    assert list((copy.results / model / "OCTID").glob("seed7-*/head.pth"))


@pytest.mark.parametrize("probe", ["knn", "logistic"])
def test_other_probes_learn_from_the_same_features_and_run_once(copy, probe):
    _, [summary] = run_sweep(dataclasses.replace(copy, probe=probe, views=None, model=probe))
    assert len(summary.scores) == 1  # nothing is random: two seeds would be the same
    assert min(summary.scores) > 0.5
    [(_, about)] = runs_of(copy, f"baseline/{probe}")
    assert about["settings"].keys() >= {"neighbours" if probe == "knn" else "logistic_c"}


def test_fractions_are_drawn_anew_by_each_seed(copy):
    config = dataclasses.replace(
        copy, train_fraction=[0.25, 1.0], probe="knn", views=None, neighbours=3
    )
    _, summaries = run_sweep(config)
    assert [(s.amount.fraction, len(s.scores)) for s in summaries] == [(0.25, 2), (1.0, 1)]
    part = [table for table, _ in runs_of(copy, probe="knn", train_fraction=0.25)]
    assert {n for table in part for n in table["train_images"]} == {6}  # a patient of two a class
    assert {n for table in part for n in table["train_patients"]} == {3}
    assert not np.array_equal(scores_of(part[0]), scores_of(part[1]))


def test_prototypes_need_no_seed_and_a_mil_probe_scores_whole_units(copy):
    plain = dataclasses.replace(copy, views=None, probe="prototype", model="p")
    run_sweep(plain)
    [(table, _)] = runs_of(copy, "baseline/p")
    assert (scores_of(table).argmax(1) == table["label"].map(CLASSES.index)).mean() > 0.5
    for name in ("mil", "prototype"):
        _, [summary] = run_sweep(
            dataclasses.replace(plain, probe=name, unit="patient", model=f"{name}-p")
        )
        assert min(summary.scores) > 0.5
    table, about = runs_of(copy, "baseline/mil-p")[0]
    assert about["settings"]["unit"] == "patient" and about["context"]["units_trained_on"] == 12
    by_patient = table.groupby("patient")[[f"p_{name}" for name in CLASSES]].nunique()
    assert (by_patient == 1).all(axis=None) and len(by_patient) == 8
    [(table, about)] = runs_of(copy, "baseline/prototype-p")
    assert "unit" not in about["settings"]  # its probabilities of images do not depend on it


def test_an_attentive_probe_learns_from_stored_patch_tokens(copy, monkeypatch):
    config = dataclasses.replace(copy, views=None, probe="attentive", attention_epochs=20,
                                 attention_lr=[1e-3], model="tokens")  # fmt: skip
    _, [summary] = run_sweep(config)
    assert min(summary.scores) > 0.5
    (_, about), _ = runs_of(config, "baseline/tokens")
    assert about["settings"]["representation_method"] == "patch_tokens"
    assert about["context"]["learning_rate"] == 1e-3
    tables = [np.load(path, mmap_mode="r") for path in config.feature_store.glob("*.npy")]
    tokens = [table for table in tables if table.dtype == np.float16 and table.shape[1] > 256]
    assert sorted(map(len, tokens)) == [12, 16, 24]
    monkeypatch.setattr(Extractor, "encode", None)  # they are there: nothing is encoded again
    run_sweep(dataclasses.replace(config, seed=[2]))


def test_few_shots_are_drawn_anew_by_each_of_twenty_seeds(copy):
    config = dataclasses.replace(
        copy, seed=[], shots=[1, 2], probe="prototype", views=None, model="few"
    )
    _, summaries = run_sweep(config)
    assert [(str(s.amount), len(s.scores)) for s in summaries] == [
        ("1 training image a class", 20), ("2 training images a class", 20),
    ]  # fmt: skip
    tables = [table for table, _ in runs_of(copy, "baseline/few", train_shots=2)]
    assert {tuple(table["shots"].unique()) for table in tables} == {(2,)}
    assert {n for table in tables for n in table["train_patients"]} == {6}
    assert np.std(summaries[0].scores) > 0


def test_fresh_augmentation_each_epoch_stays_close_to_stored_views(tmp_path):
    """Bounds the difference on a task of many test images, averaged over five seeds."""
    counts = {"train": 24, "val": 24, "test": 240}
    write_data_set(tmp_path / "data" / "OCTID", counts, CLASSES[:2])
    write_base_model(tmp_path / "base.pth")
    short = {"patience": 10, "patience_start": 10}
    config = small_probe(tmp_path, seed=[0, 1, 2, 3, 4], views=16, **short)
    _, [stored] = run_sweep(config)
    slow = dataclasses.replace(config, views=None, online_augmentation=True, model="online")
    _, [online] = run_sweep(slow)
    assert abs(np.mean(stored.scores) - np.mean(online.scores)) < 0.03
    _, about = runs_of(config, "baseline/online")[0]
    assert about["settings"]["online_augmentation"] is True
    assert about["context"]["views"] is None
    # Views, clean validation and test images, hashes of three splits; fresh features are not kept.
    assert len(list(config.feature_store.iterdir())) == 16 + 2 + 3


def test_a_class_that_training_never_saw_is_said_not_a_crash(copy):
    shutil.rmtree(copy.data_root / "OCTID" / "train" / "AMD")
    for probe, views in (("linear", 4), ("knn", None), ("logistic", None)):
        config = dataclasses.replace(copy, probe=probe, views=views, model=f"no-{probe}")
        _, [summary] = run_sweep(config)
        assert summary.notes == ["No image of AMD in train."]
        table, about = runs_of(copy, f"baseline/no-{probe}")[0]
        assert about["notes"] == summary.notes
        assert (scores_of(table).argmax(1) != 0).all()


def test_earlier_data_sets_are_kept_when_a_later_one_fails(copy):
    write_data_set(copy.data_root / "Zeta")
    broken = next((copy.data_root / "Zeta" / "test" / "DME").iterdir())
    broken.write_bytes(b"no image")
    config = dataclasses.replace(copy, model="both", data_set=["OCTID", "Zeta"])
    with pytest.raises(InputError, match=broken.name):
        run_sweep(config)
    assert {p.parts[2] for p in places(copy) if "both" in p.parts[1]} == {"OCTID"}
    shutil.rmtree(copy.data_root / "Zeta")
    write_data_set(copy.data_root / "Zeta")
    _, [first, second] = run_sweep(config)
    assert (first.skipped, second.skipped) == (2, 0)


def test_a_batch_larger_than_the_data_is_refused(copy):
    with pytest.raises(InputError, match="more than there are training images"):
        run_sweep(dataclasses.replace(copy, batch_size=25))


def test_a_damaged_result_is_named_not_replaced(copy):
    metrics = find_runs(copy.results)[0] / "run.json"
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
    assert [about["seed"] for _, about in runs_of(copy)] == [0, 1, 2]


def test_a_test_image_that_was_trained_on_is_an_error_and_can_be_allowed(copy):
    folder = copy.data_root / "OCTID"
    image = next((folder / "train" / "AMD").iterdir())
    with Image.open(image) as picture:
        picture.save(folder / "test" / "AMD" / "P77_OD_v1.jpg", quality=90)
    with pytest.raises(InputError, match=f"AMD/{image.name} = AMD/P77_OD_v1.jpg"):
        run_sweep(copy)
    _, [summary] = run_sweep(dataclasses.replace(copy, allow_leaks=True))
    assert any("1 images of test are in train" in note for note in summary.notes)
    assert summary.notes in [about["notes"] for _, about in runs_of(copy)]
