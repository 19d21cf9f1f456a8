"""The folder of a run."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from retfiner.common.cli import as_plain, parse
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.training.recipe import Basis, choose_recipe, settings_of
from retfiner.training.resume import find_resume_checkpoint
from retfiner.training.run_folder import (
    git_revision,
    make_run_folder,
    open_run_folder,
    run_name,
    write_config,
)


def config(**changes):
    return RefineConfig(**({"model_weights": Path("w.pth"), "train_csv": Path("p.csv")} | changes))


def name_of(backbone, **changes):
    settings = config(recipe="published", **changes)
    recipe = choose_recipe(
        settings.recipe, settings_of(settings), Basis(backbone, 12, False, False, 100, 10, 1, 1)
    ).recipe
    return run_name(
        backbone,
        settings.weights,
        temperature=settings.temperature,
        exponential_temp=settings.exponential_temp,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        note=settings.note,
    )


@pytest.mark.parametrize(
    ("changes", "backbone", "name"),
    [
        ({}, "RETFound", "RETFound_itc-itm-mlm-gm_temp0.07_lr0.0001_bs128"),
        ({"losses": ["mlm"], "lr": 3e-5}, "MAE", "MAE_mlm_temp0.07_lr3e-05_bs128"),
        (
            {"losses": ["itc", "gm"], "loss_weights": [0.5, 1.0]},
            "timm/vit_base_patch16_224",
            "timm-vit_base_patch16_224_itc0.5-gm_temp0.07_lr0.0001_bs128",
        ),
        (
            {"exponential_temp": True, "contra_temp": 0.1, "note": "ü / 2. Versuch!"},
            "VisionFM",
            "VisionFM_itc-itm-mlm-gm_temp0.1exp_lr0.0001_bs128_2.-Versuch",
        ),
    ],
)
def test_the_name_says_what_was_done(changes, backbone, name):
    assert name_of(backbone, **changes) == name


def test_no_note_can_lead_out_of_the_folder(tmp_path):
    name = name_of("MAE", note="../../x")
    assert make_run_folder(tmp_path, name).parent == tmp_path


def test_a_folder_is_never_given_twice(tmp_path):
    """Also to runs that start in the same moment."""
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: make_run_folder(tmp_path / "new", "a"), range(24)))
    assert len(set(folders)) == 24
    assert {folder.name for folder in folders} == {"a", *(f"a-{i}" for i in range(2, 25))}


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(InputError, match="no run folder can be made") as caught:
        make_run_folder(tmp_path / "models" / "deep", "a")
    assert "--output_dir" in str(caught.value)


def test_what_to_resume(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"x")
    assert find_resume_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    assert find_resume_checkpoint(tmp_path / "last.ckpt") == tmp_path / "last.ckpt"
    with pytest.raises(InputError, match="nothing to resume"):
        find_resume_checkpoint(tmp_path / "other.ckpt")


def test_config_yaml_can_be_given_back(tmp_path):
    settings = config(note="ä: #1", losses=["gm"], loss_weights=[2.0], output_dir=Path("a b"))
    write_config(tmp_path, as_plain(settings), {"backbone": "MAE", "odd": "line\nbreak"})
    assert parse(RefineConfig, "", ["--config", str(tmp_path / "config.yaml")]) == settings
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == as_plain(settings)
    facts = yaml.safe_load("\n".join(x[2:] for x in text.splitlines() if x.startswith("#")))
    assert facts["backbone"] == "MAE"
    assert facts["odd"] == "line\nbreak"
    assert set(facts) >= {"command", "git_revision"}


def test_revision_is_known_or_said_to_be_unknown(tmp_path, monkeypatch):
    assert git_revision()
    monkeypatch.setattr("retfiner.training.run_folder.REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() == "unknown"


def test_the_command_can_be_pasted_back(tmp_path):
    code = (
        "from pathlib import Path;"
        "from retfiner.training.run_folder import write_config;"
        "write_config(Path('.'), {}, {})"
    )
    subprocess.run([sys.executable, "-c", code, "--note", "two words"], cwd=tmp_path, check=True)
    assert "# command: -c --note 'two words'" in (tmp_path / "config.yaml").read_text()


def test_what_was_refused_leaves_no_folder_and_what_was_trained_stays(tmp_path):
    for trained in (False, True):
        with (
            pytest.raises(InputError),
            open_run_folder(tmp_path, "run", existing=None) as folder,
        ):
            write_config(folder, {"lr": 1.0}, {})
            if trained:
                (folder / "metrics.csv").write_text("step\n")
            raise InputError("refused")
        assert folder.exists() == trained
