"""Which run goes on, and whether it is the same one."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.refine import build, read_tables, refine
from retfiner.training import recipe
from retfiner.training.resume import AUTO, differences, find_newest, glob_literal, read_resumed_run
from retfiner.vision.checkpoint_file import read_checkpoint
from tests.helpers.refinement import column, make_material, read_csv, settings, write_csv


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    return refine(settings(material, tmp_path_factory.mktemp("finished"), max_epochs=1)).folder


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run in a folder of runs that a test may change."""
    return shutil.copytree(finished, tmp_path / "runs" / finished.name)


def auto(material, copy, **changes):
    return settings(material, copy.parent, resume=AUTO, **({"max_epochs": 1} | changes))


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


# -- which run -------------------------------------------------------------------------------------


def test_a_finished_run_is_reported_and_left_as_it_is(material, copy, capsys):
    before = files(copy)
    result = refine(auto(material, copy))
    assert files(copy) == before
    assert result.folder == copy
    assert result.before["val/loss"] == column(copy, "val/loss")[0]
    assert result.best["val/loss"] == column(copy, "val/loss")[1]
    said = capsys.readouterr().out
    assert "is finished: 1 epochs" in said
    assert "loss, sum" in said


def test_what_is_lost_of_a_finished_run_is_restored_or_said(material, copy):
    rows = (copy / "metrics.csv").read_bytes()
    for damage in (b"\xef\xff\0", None):
        (copy / "metrics.csv").unlink()
        if damage is not None:
            (copy / "metrics.csv").write_bytes(damage)
        refine(auto(material, copy))
        assert (copy / "metrics.csv").read_bytes() == rows
    (copy / "best-model.ckpt").unlink()
    with pytest.raises(InputError, match="its refined model is gone"):
        refine(auto(material, copy))


def test_a_run_that_has_lost_its_best_weights_keeps_the_best_of_what_follows(
    material, copy, capsys
):
    """Else there was none at its end where no later epoch is better."""
    (copy / "best-model.ckpt").unlink()
    refine(auto(material, copy, max_epochs=2))
    assert "best-model.ckpt is gone; the best of the epochs to come" in capsys.readouterr().out
    assert torch.load(copy / "best-model.ckpt", weights_only=True)["epoch"] == 1


def test_figures_are_those_of_the_weights_that_were_kept(material, tmp_path, capsys):
    """Ten validation pairs: all epochs recall as much, and the first of equals is gone."""
    words = {"monitor": ["image_to_text_recall@10"], "max_epochs": 1}
    first = refine(settings(material, tmp_path, **words))
    (first.folder / "best-model.ckpt").unlink()
    words |= {"max_epochs": 2, "resume": first.folder}
    for _ in range(2):  # when it ends, and when it is finished
        kept = refine(settings(material, tmp_path, **words))
        assert kept.best["val/loss"] == column(kept.folder, "val/loss")[2] != first.best["val/loss"]
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch  2")]
    assert line.endswith("*")


def test_more_epochs_are_more_to_do_also_in_a_moved_folder(material, copy):
    score = torch.load(copy / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = (s["best_model_score"] for s in score.values() if "best_model_score" in s)
    folder = refine(auto(material, copy, max_epochs=2, lr=1e-3)).folder
    assert folder == copy
    assert len(column(folder, "train/loss")) == 2
    later = torch.load(copy / "last.ckpt", weights_only=True)["callbacks"]
    (after,) = (s["best_model_score"] for s in later.values() if "best_model_score" in s)
    assert after == min(float(best), column(folder, "val/loss")[-1])


def test_what_the_recipe_chose_stays_when_a_run_goes_on(material, tmp_path):
    """Half of a longer run would be another wait for the fusion losses."""
    unset = dict.fromkeys(
        ["fixed_temp", "duplicate_reports", "redraw_masks", "random_token_from", "drop_path"]
    )
    words = unset | {"recipe": "auto", "train_interpolation": None, "batch_size": 4}
    first = refine(settings(material, tmp_path, resume=AUTO, max_epochs=1, **words)).folder
    chosen = read_resumed_run(first / "last.ckpt").chosen
    assert chosen["fusion_warmup_steps"] > 0
    assert {"batch_size", "lr", "max_epochs"}.isdisjoint(chosen)
    folder = refine(settings(material, tmp_path, resume=AUTO, max_epochs=3, **words)).folder
    assert folder == first
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert {name: kept[name] for name in chosen} == chosen
    assert kept["max_epochs"] == 3
    with pytest.raises(InputError, match="--fusion_warmup_steps was"):
        refine(settings(material, tmp_path, resume=first, fusion_warmup_steps=0, **words))
    lines = ["--config", str(folder / "config.yaml"), "--resume", str(folder), "--max_epochs", "4"]
    refine(parse(RefineConfig, "", lines))
    folder = refine(settings(material, tmp_path, resume=AUTO, max_epochs=5, **words)).folder
    assert folder == first, "also after it went on by its config.yaml"


def test_a_run_of_an_earlier_recipe_goes_on_by_that(material, tmp_path, monkeypatch):
    words = {"drop_path": None, "recipe": "auto", "train_interpolation": None, "batch_size": 4}
    with monkeypatch.context() as earlier:
        earlier.setattr(recipe, "FEW_PAIRS_RANK", None)
        first = refine(settings(material, tmp_path, max_epochs=1, **words)).folder
    folder = refine(settings(material, tmp_path, resume=first, max_epochs=2, **words)).folder
    assert folder == first and len(column(folder, "train/loss")) == 2
    checkpoint = read_checkpoint(folder / "last.ckpt")
    assert not [key for key in checkpoint.content["state_dict"] if "lora" in key]
    assert checkpoint.metadata["lora_scale"] is None
    new = refine(settings(material, tmp_path / "new", max_epochs=1, **words)).folder
    assert read_checkpoint(new / "last.ckpt").metadata["lora_scale"] == 2


@pytest.mark.slow
def test_other_settings_begin_a_run_of_their_own(material, copy, capsys):
    folder = refine(auto(material, copy, weight_decay=0.5)).folder
    assert folder.name == f"{copy.name}-2"
    said = capsys.readouterr().out
    assert "a new one begins" in said
    assert "--weight_decay was" in said


def test_a_table_that_lies_elsewhere_now_is_the_same_data(material, copy, tmp_path):
    """Content decides: a moved table goes on, an edited one does not."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(material.csv.parent / "images", moved / "images")
    table = shutil.copy(material.csv, moved / "renamed.csv")
    again = replace(auto(material, copy), train_csv=Path(table))
    description = build(again, read_tables(again)).module.description
    stored = read_resumed_run(copy / "last.ckpt").description
    assert differences(stored, description) == []
    Path(table).write_text(Path(table).read_text().replace("fluid", "edema"))
    changed = build(again, read_tables(again)).module.description
    assert len(differences(stored, changed)) == 1
    with pytest.raises(InputError, match="other settings") as caught:
        refine(replace(again, resume=copy))
    assert f"--train_csv {table}" in str(caught.value)


def test_the_newest_is_the_highest_number_whatever_the_clock_says(copy):
    about = torch.load(copy / "last.ckpt", weights_only=True)["retfiner"]
    newer = shutil.copytree(copy, copy.with_name(f"{copy.name}-10"))
    shutil.copytree(copy, copy.with_name(f"{copy.name}-9"))
    shutil.copytree(copy, copy.with_name(f"{copy.name}_note-11"))
    (copy.with_name(f"{copy.name}-12")).mkdir()
    os.utime(newer / "last.ckpt", (0, 0))
    found, _ = find_newest(copy.parent, copy.name, about)
    assert found is not None
    assert found.folder == newer


def test_names_are_no_patterns(tmp_path):
    name = "a[1]*?"
    (tmp_path / name).mkdir()
    (tmp_path / "a1xy").mkdir()
    assert [path.name for path in tmp_path.glob(glob_literal(name))] == [name]


def test_a_damaged_checkpoint_is_an_error_not_a_new_run(material, copy):
    (copy / "last.ckpt").write_bytes((copy / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged") as caught:
        refine(auto(material, copy))
    assert f"{copy / 'best-model.ckpt'} holds its best weights" in str(caught.value)


def test_another_checkpoint_of_a_run_leads_to_the_one_it_goes_on_from(copy):
    with pytest.raises(InputError, match=f"--resume {copy / 'last.ckpt'}"):
        read_resumed_run(copy / "best-model.ckpt")


def test_a_setting_of_a_later_version_stops_no_run_unless_it_is_given(copy):
    now = read_resumed_run(copy / "last.ckpt").description
    earlier = now | {"settings": {k: v for k, v in now["settings"].items() if k != "max_alike"}}
    assert differences(earlier, now) == []
    given = now | {"given": [*now["given"], "max_alike"]}
    assert differences(earlier, given) == ["--max_alike was None, now 0.3"]


def test_rows_that_cannot_be_read_are_restored_from_the_checkpoint(material, copy):
    (copy / "metrics.csv").write_bytes(b"\xef\xff\0" * 99)
    refine(auto(material, copy, max_epochs=2))
    assert len([loss for loss in column(copy, "val/loss") if loss is not None]) == 3


# -- the same data ---------------------------------------------------------------------------------


@pytest.fixture
def movable(material, tmp_path):
    return material._replace(
        csv=shutil.copytree(material.csv.parent, tmp_path / "data") / material.csv.name
    )


@pytest.mark.parametrize("change", ["report", "image"])
def test_other_data_are_refused(movable, tmp_path, change):
    folder = refine(settings(movable, tmp_path / "runs", max_epochs=1)).folder
    rows = read_csv(movable.csv)
    if change == "report":
        rows[3][1] += " No fluid."
        write_csv(movable.csv, rows)
    else:
        shutil.copyfile(movable.csv.parent / rows[1][0], movable.csv.parent / rows[0][0])
    with pytest.raises(InputError, match="the data are others"):
        refine(settings(movable, tmp_path / "runs", resume=folder, max_epochs=2))


def test_config_yaml_names_data_and_code(finished):
    text = (finished / "config.yaml").read_text(encoding="utf-8")
    facts = yaml.safe_load("\n".join(line[2:] for line in text.splitlines() if line[:1] == "#"))
    stored = read_resumed_run(finished / "last.ckpt").description["provenance"]
    assert len(stored["data_sha256"]) == 64
    assert facts["provenance"]["data_sha256"] == stored["data_sha256"]
    assert facts["deterministic"] is False
    assert {"command", "git_revision", "versions"} <= set(facts)


@pytest.mark.slow
def test_a_deterministic_run_repeats_itself_and_says_so(material, finished, tmp_path):
    folder = refine(settings(material, tmp_path, max_epochs=1, deterministic=True)).folder
    assert (folder / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()
    assert "# deterministic: true" in (folder / "config.yaml").read_text(encoding="utf-8")
