"""train.py as a user runs it: one whole run, and the errors a user meets."""

import os

import pytest
import torch
import yaml

from tests.helpers.refinement import column, make_material, read_csv, write_csv
from tests.helpers.scripts import REFINEMENT, assert_clear_error, run_script


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material with space"), pairs=16, patients=8)


@pytest.fixture(scope="module")
def trained(material):
    """A run by ``--config`` and flags, its paths relative to the folder of the scripts."""
    folder = material.csv.parent
    settings = {
        "train_csv": os.path.relpath(material.csv, REFINEMENT),
        "text_encoder": os.path.relpath(material.text_encoder, REFINEMENT),
        "batch_size": 4,
        "max_epochs": 5,
        "val_fraction": 0.3,
        "num_workers": 2,
        "seed": 1,
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    done = run_script(
        "train.py", "--model_weights", os.path.relpath(material.weights, REFINEMENT),
        "--config", folder / "settings.yaml", "--max_epochs", "2", "--losses", "itc", "gm",
        "--output_dir", folder / "models", "--note", "script",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "models" / "RETFound_itc-gm_temp0.07_lr0.001_bs4_script", done


def test_a_run_leaves_its_files_and_says_where(trained):
    folder, done = trained
    for name in ("best-model.ckpt", "last.ckpt", "config.yaml", "metrics.csv", "curves.png"):
        assert (folder / name).is_file()
    assert "Traceback" not in done.stderr
    assert "\r" not in done.stderr + done.stdout, "a bar is for terminals"
    for words in (
        "a ViT (48 wide, 2 deep, patch 8) in RETFound's layout",
        "itc x 1, gm x 1",
        "10 to train on, 6 to validate",
    ):
        assert words in done.stdout
    assert f"--path_to_model '{folder / 'best-model.ckpt'}'\n" in done.stdout


def test_flags_go_before_the_file(trained):
    folder, _ = trained
    values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (values["max_epochs"], values["batch_size"], values["seed"]) == (2, 4, 1)
    assert len(column(folder, "train/loss")) == 2
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 6
    assert "# command: " in (folder / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_goes_on_by_its_own_config(trained):
    """What the error about other settings tells a user to type."""
    folder, _ = trained
    done = run_script(
        "train.py", "--config", folder / "config.yaml", "--resume", folder, "--max_epochs", "3"
    )
    assert done.returncode == 0, done.stderr
    assert len(column(folder, "train/loss")) == 3
    assert len(list(folder.parent.iterdir())) == 1


def test_rows_that_cannot_be_used(material, tmp_path):
    rows = read_csv(material.csv)
    rows[3][0], rows[5][1] = "images/nowhere.png", " "
    broken = write_csv(material.csv.parent / "broken.csv", rows)
    done = run_script(
        "train.py", "--model_weights", material.weights, "--text_encoder", material.text_encoder,
        "--train_csv", broken, "--output_dir", tmp_path / "models",
    )  # fmt: skip
    assert_clear_error(
        done, "2 of 16 rows", "row 5: there is no file", "nowhere.png",
        "row 7: empty report", "--on_bad_row skip",
    )  # fmt: skip
    assert "patient-" not in done.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model_weights", "w", "--train_csv", "p", "--temprature", "1"], "temprature"),
        (["--model_weights", "w", "--train_csv", "p", "--batch_size", "1"], "a batch of one"),
        (["--model_weights", "w"], "nothing to train on"),
    ],
)
def test_a_command_line_that_makes_no_sense(words, expected):
    assert_clear_error(run_script("train.py", *words), expected)


def test_help():
    done = run_script("train.py", "--help")
    assert done.returncode == 0
    assert "--checkpoint_every_n_steps" in done.stdout
    assert "default: 0.01" in " ".join(done.stdout.split())
