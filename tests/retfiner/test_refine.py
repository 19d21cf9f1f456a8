"""Whole runs in miniature: what each setting does to the numbers and to the files."""

import gc
import json
import math
import re
import shutil
import tempfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.data.sampler import BalancedBatchSampler
from retfiner.refine import build, read_tables, refine
from retfiner.training.callbacks.guard import build_guard
from retfiner.training.guard import Change
from retfiner.training.module import RefinementModule
from tests.helpers.refinement import (
    HEADS,
    OWN_DATASET,
    column,
    damage_in_the_middle,
    load_pairs,
    make_material,
    metrics_of,
    read_csv,
    settings,
    write_csv,
    write_image,
    write_pairs,
)
from tests.helpers.small import small_vit

LOSSES = ("itc", "itm", "mlm", "gm")

DATASET = f"""{OWN_DATASET}
import torch

class TurnsBad(Pairs):
    seen = 0
    # 10 validation pairs before training, then epochs of 14 training and 10 validation pairs
    def __getitem__(self, index):
        self.seen += 1
        image, report = super().__getitem__(index)
        return [image * torch.nan if self.seen == 10 + 24 + 10 else image, report]
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    (folder / "mine.py").write_text(DATASET)
    return make_material(folder)


@pytest.fixture(scope="module")
def base(material, tmp_path_factory):
    """A run with all settings at those of ``settings``."""
    return refine(settings(material, tmp_path_factory.mktemp("base")))


@pytest.fixture
def run(material, tmp_path):
    def run(**changes):
        return refine(settings(material, **({"output_dir": tmp_path / "models"} | changes))).folder

    return run


def checkpoint(folder, name="best-model.ckpt"):
    return torch.load(folder / name, weights_only=True)


def encoder_of(folder, name="best-model.ckpt"):
    state = checkpoint(folder, name)["state_dict"]
    return {
        k.removeprefix("model.vision_encoder."): v for k, v in state.items() if "vision_enc" in k
    }


def distance(one, two):
    return math.sqrt(sum((one[key] - two[key]).double().square().sum().item() for key in one))


def start(material):
    state = torch.load(material.weights, weights_only=True)["model"]
    return {key: value for key, value in state.items() if not key.startswith(("dec", "mask"))}


def first_losses(folder):
    """The validation losses before the first step: what the settings make of the same weights."""
    return {
        name: column(folder, f"val/{name}")[0] for name in LOSSES if column(folder, f"val/{name}")
    }


# -- what a run leaves ---------------------------------------------------------------------------


def test_the_run_folder_holds_what_it_should(base):
    names = {path.name for path in base.folder.iterdir()}
    assert names == {
        "best-model.ckpt", "last.ckpt", "config.yaml", "metrics.csv", "curves.png", "tensorboard",
    }  # fmt: skip
    assert base.folder.name == "RETFound_itc-itm-mlm-gm_temp0.07_lr0.001_bs8"
    with Image.open(base.folder / "curves.png") as curves:
        assert np.asarray(curves.convert("L")).std() > 5
    events = list((base.folder / "tensorboard").rglob("events.out.tfevents*"))
    assert events
    assert sum(path.stat().st_size for path in events) > 1000


def test_metrics_hold_every_loss_and_recall_of_both_parts(base):
    losses = (*LOSSES, "loss")
    for name in losses:
        assert len(column(base.folder, f"train/{name}")) == 2
        assert len(column(base.folder, f"val/{name}")) == 3  # one before training
    for direction in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            assert all(0 <= v <= 1 for v in column(base.folder, f"val/{direction}_recall@{k}"))


def test_training_lowers_the_loss(base):
    assert column(base.folder, "val/loss")[0] > column(base.folder, "val/loss")[-1]
    assert base.before["val/loss"] == pytest.approx(column(base.folder, "val/loss")[0])
    assert base.best["val/loss"] == min(column(base.folder, "val/loss")[1:])


def test_config_yaml_says_what_was_done(base, material):
    text = (base.folder / "config.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert values["losses"] == list(LOSSES)
    assert values["model_weights"] == str(material.weights)
    facts = yaml.safe_load("\n".join(line[2:] for line in text.splitlines() if line[:1] == "#"))
    assert facts["train_pairs"], facts["validation_pairs"] == (14, 10)
    assert facts["provenance"]["base_weights_file"] == "RETFound_small.pth"
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["precision"] == "32-true"


def test_checkpoints_can_be_read_without_running_anything(base):
    for name in ("best-model.ckpt", "last.ckpt"):
        found = checkpoint(base.folder, name)
        about = found["retfiner"]
        assert (about["backbone"], about["image_size"], about["num_heads"]) == (
            "RETFound",
            32,
            HEADS,
        )
        assert found["pytorch-lightning_version"]
    assert "optimizer_states" not in checkpoint(base.folder)
    assert "optimizer_states" in checkpoint(base.folder, "last.ckpt")


def test_checkpoints_carry_what_was_found_of_their_encoder(base):
    steps = [int(row["step"]) for row in metrics_of(base.folder) if row["val/loss"]]
    losses = column(base.folder, "val/loss")
    best = 1 + int(np.argmin(losses[1:]))
    for name, row in (("best-model.ckpt", best), ("last.ckpt", len(losses) - 1)):
        content = checkpoint(base.folder, name)
        found = content["retfiner"]["guard"]
        assert found["step"] == content["global_step"] == steps[row] + 1
        for value in Change._fields:
            assert found[value] == pytest.approx(column(base.folder, f"guard/{value}")[row])


def test_the_whole_model_trains(base, material):
    before = start(material)
    after = encoder_of(base.folder)
    assert set(after) == set(before)
    assert all(not torch.equal(after[key], before[key]) for key in before)


def test_a_second_run_gets_a_folder_of_its_own(run):
    one, two = run(max_epochs=1), run(max_epochs=1)
    assert two.name == f"{one.name}-2"
    assert (
        checkpoint(one)["retfiner"]["provenance"]["run_id"]
        != (checkpoint(two)["retfiner"]["provenance"]["run_id"])
    )


def test_note_and_output_dir(run, tmp_path):
    folder = run(max_epochs=1, note="mein Versuch 1/ä", output_dir=tmp_path / "über all" / "hier")
    assert folder.parent == tmp_path / "über all" / "hier"
    assert folder.name.endswith("_bs8_mein-Versuch-1")


# -- the same seed -------------------------------------------------------------------------------


def test_same_seed_same_numbers(base, run):
    again = run()
    assert (again / "metrics.csv").read_bytes() == (base.folder / "metrics.csv").read_bytes()
    one, two = checkpoint(again)["state_dict"], checkpoint(base.folder)["state_dict"]
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_cached_images_change_next_to_nothing_and_leave_nothing(base, run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for workers in (0, 2):
        folder = run(image_cache=True, num_workers=workers)
        cached = column(folder, "val/loss")
        assert cached == pytest.approx(column(base.folder, "val/loss"), rel=1e-3)
        assert cached != column(base.folder, "val/loss")  # 8 bits
    gc.collect()
    assert not list(tmp_path.glob("retfiner-images-*"))


def test_workers_change_nothing(base, run):
    workers = run(num_workers=2, worker_start="fork")
    assert (workers / "metrics.csv").read_bytes() == (base.folder / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_spawned_workers_change_nothing(base, run):
    workers = run(num_workers=1, worker_start="spawn", max_epochs=2)
    assert (workers / "metrics.csv").read_bytes() == (base.folder / "metrics.csv").read_bytes()


def test_another_seed_gives_other_numbers(material, base, run, tmp_path):
    other = write_pairs(tmp_path, pairs=6, patients=3, name="val.csv", first=50)
    runs = [run(seed=seed, val_csv=other, max_epochs=1) for seed in (1, 2)]
    assert column(runs[0], "val/loss") != column(runs[1], "val/loss")
    assert column(runs[0], "val/loss") != column(base.folder, "val/loss")[:2]


# -- objectives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [["itc"], ["mlm", "gm"], ["itm", "mlm"]])
def test_only_the_named_losses_are_built_trained_and_logged(run, losses):
    folder = run(losses=losses, max_epochs=1)
    header = metrics_of(folder)[0].keys()
    assert {n.removeprefix("val/") for n in header if n.startswith("val/") and "@" not in n} == {
        *losses, "loss"
    }  # fmt: skip
    keys = checkpoint(folder)["state_dict"]
    contrastive = bool({"itc", "itm"} & set(losses))
    assert any("itm_head" in key for key in keys) == ("itm" in losses)
    assert any("contra_head_v" in key for key in keys) == contrastive
    assert any("@" in name for name in header) == contrastive
    assert column(folder, "val/loss")[-1] == pytest.approx(
        sum(column(folder, f"val/{name}")[-1] for name in losses), rel=1e-5
    )


UNSET = dict.fromkeys(
    ["fixed_temp", "duplicate_reports", "redraw_masks", "random_token_from", "train_interpolation",
     "drop_path", "lr"]
)  # fmt: skip
"""Left to the recipe, of which the other runs here set them."""


@pytest.mark.parametrize("recipe", ["auto", "published"])
@pytest.mark.parametrize("losses", [["mlm"], ["itm"], ["itc"]])
def test_any_losses_train_by_any_recipe_and_their_settings_can_be_given_back(
    run, recipe, losses, capsys
):
    """``config.yaml`` is what a run that is stopped names to go on with."""
    folder = run(losses=losses, recipe=recipe, max_epochs=1, **UNSET)
    assert "by ITC alone" not in capsys.readouterr().out or "itc" in losses
    words = ["--config", str(folder / "config.yaml"), "--resume", str(folder), "--max_epochs", "2"]
    again = refine(parse(RefineConfig, "", words)).folder
    assert again == folder
    assert len(column(folder, "val/loss")) == 3


def test_loss_weights_weigh(base, run):
    weights = [0.5, 0.0, 2.0, 1.0]
    folder = run(loss_weights=weights, max_epochs=1)
    for phase in ("train", "val"):
        parts = [column(folder, f"{phase}/{name}")[-1] for name in LOSSES]
        total = sum(w * part for w, part in zip(weights, parts, strict=True))
        assert column(folder, f"{phase}/loss")[-1] == pytest.approx(total, rel=1e-5)
    assert first_losses(folder) == first_losses(base.folder)
    assert "_itc0.5-itm0-mlm2-gm_" in folder.name


def test_training_images_alone_can_be_resized_bicubically(base, run):
    folder = run(train_interpolation="bicubic", max_epochs=1)
    assert first_losses(folder) == first_losses(base.folder)
    assert column(folder, "guard/base") == column(base.folder, "guard/base")[:2]
    assert column(folder, "train/loss")[0] != column(base.folder, "train/loss")[0]


def test_contra_temp_scales_the_similarities(base, run):
    warm = run(contra_temp=1.0, max_epochs=1)
    assert first_losses(warm)["itc"] != first_losses(base.folder)["itc"]
    assert first_losses(warm)["mlm"] == first_losses(base.folder)["mlm"]
    assert checkpoint(warm)["state_dict"]["model.contra_temp"] == pytest.approx(1.0, abs=0.01)
    assert checkpoint(base.folder)["state_dict"]["model.contra_temp"] == pytest.approx(
        0.07, abs=0.01
    )
    assert "_temp1_" in warm.name


def test_exponential_temp_learns_the_logarithm(base, run):
    folder = run(exponential_temp=True, max_epochs=1)
    stored = checkpoint(folder)["state_dict"]["model.contra_temp"]
    assert stored == pytest.approx(math.log(0.07), abs=0.01)
    assert stored != math.log(0.07)
    assert first_losses(folder) == pytest.approx(first_losses(base.folder), rel=1e-5)
    assert "_temp0.07exp_" in folder.name


def test_duplicate_reports_count_as_matches_unless_ignored(material, run, tmp_path):
    rows = [
        [str(material.csv.parent / image), ("No fluid.", "A large cyst.")[i % 2], patient]
        for i, (image, _, patient) in enumerate(read_csv(material.csv))
    ]
    same = write_csv(tmp_path / "same.csv", rows)
    changes = {"train_csv": same, "losses": ["itc", "itm"], "max_epochs": 1}
    shared, ignore = run(**changes), run(duplicate_reports="ignore", **changes)
    # Without dropout equal reports have equal logits, and the contrast is the same either way.
    assert column(shared, "train/itc") != column(ignore, "train/itc")
    assert first_losses(shared)["itm"] != first_losses(ignore)["itm"]


def test_a_batch_in_chunks_gives_the_run_of_the_whole_batch(run, material, tmp_path, capsys):
    """Steps, chance and all numbers, but for what dropout draws: this text encoder has none."""
    encoder = without_dropout(material.text_encoder, tmp_path / "bert")
    whole = run(batch_size=8, text_encoder=encoder, output_dir=tmp_path / "whole")
    assert "Contrast:" not in capsys.readouterr().out
    chunked = run(batch_size=3, contrast_batch=8, text_encoder=encoder)
    assert "up to 8 pairs together, computed 3 at a time" in capsys.readouterr().out
    assert chunked.name == whole.name == "RETFound_itc-itm-mlm-gm_temp0.07_lr0.001_bs8"
    rows = [metrics_of(folder) for folder in (whole, chunked)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for name in [name for name in rows[0][0] if name.split("/")[0] in ("val", "train", "chance")]:
        values = column(whole, name)
        assert column(chunked, name) == pytest.approx(values, rel=1e-4), name
    assert column(chunked, "chance/itc")[0] == pytest.approx(math.log(5), rel=1e-6)


def without_dropout(source, folder):
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_sigmoid_contrast_trains_beside_its_guess(base, run, capsys):
    folder = run(contrast="sigmoid", losses=["itc"], max_epochs=2)
    state = checkpoint(folder)["state_dict"]
    assert state["model.contra_temp"] == pytest.approx(-math.log(10), abs=0.05)
    assert state["model.contra_bias"] == pytest.approx(-10.0, abs=0.05) and (
        state["model.contra_bias"] != -10.0
    )
    assert "_temp0.1_" in folder.name
    # batches of five distinct pairs: five questions an image, one of them right
    share = -5 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert column(folder, "chance/itc")[0] == pytest.approx(share, rel=1e-5)
    assert "model.contra_bias" not in checkpoint(base.folder)["state_dict"]


def test_similar_reports_share_the_target(base, run):
    folder = run(duplicate_reports="similar", max_epochs=1)
    assert first_losses(folder)["itc"] != first_losses(base.folder)["itc"]
    assert first_losses(folder)["mlm"] == first_losses(base.folder)["mlm"]


def test_duplicate_reports_make_no_difference_without_duplicates(base, run):
    folder = run(duplicate_reports="ignore", max_epochs=1)
    assert first_losses(folder) == first_losses(base.folder)


def test_max_text_tokens_cuts_reports_and_says_how_many(base, run, capsys):
    folder = run(max_text_tokens=6, max_alike=1.0, max_epochs=1)
    said = capsys.readouterr().out
    assert "24 of 24 (100.0 %) are longer than 6 WordPieces and are cut" in said
    # [CLS] b - scan with [SEP]: all of them begin alike.
    assert "24 of 24 distinct reports are the same as another after the cut at 6 Word" in said
    assert column(folder, "chance/itm") == [0.0, 0.0], "and none is a negative of another"
    assert first_losses(folder)["mlm"] != first_losses(base.folder)["mlm"]


def test_max_text_tokens_beyond_the_text_encoder(run):
    with pytest.raises(InputError, match=r"longer than the text encoder can read.*\n.*41.*\n.*40"):
        run(max_text_tokens=41)


# -- optimisation --------------------------------------------------------------------------------


def test_lr_is_how_far_the_weights_go(base, run, material):
    small = run(lr=1e-6)
    assert distance(encoder_of(small), start(material)) < 0.01 * distance(
        encoder_of(base.folder), start(material)
    )


def test_weight_decay_shrinks_weights(run, material):
    free, decayed = run(weight_decay=0.0, max_epochs=1), run(weight_decay=100.0, max_epochs=1)
    name = "blocks.0.mlp.fc1.weight"
    shrinkage = encoder_of(decayed)[name].norm() / encoder_of(free)[name].norm()
    assert shrinkage == pytest.approx((1 - 1e-3 * 100) ** 2, abs=0.02)  # two steps


@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 0), ("constant", 15), ("cosine", 6)])
def test_learning_rate_follows_its_schedule(run, schedule, warmup):
    folder = run(batch_size=2, max_epochs=3, lr_schedule=schedule, warmup_steps=warmup)
    rates = [
        (int(r["step"]), float(r["lr-AdamW/new"])) for r in metrics_of(folder) if r["lr-AdamW/new"]
    ]
    assert [step for step, _ in rates] == [6, 13, 20]  # logged once an epoch of seven steps
    for step, rate in rates:
        if step < warmup:
            expected = (step + 1) / (warmup + 1)
        elif schedule == "constant":
            expected = 1.0
        else:
            expected = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (21 - warmup)))
        assert rate == pytest.approx(1e-3 * expected)


def test_batch_size_and_accumulation_set_the_number_of_steps(base, run):
    steps = [
        checkpoint(folder, "last.ckpt")["global_step"]
        for folder in (
            base.folder,
            run(batch_size=4),
            run(batch_size=4, accumulate_grad_batches=2),
            run(batch_size=64),
        )
    ]
    assert steps == [4, 8, 4, 2]  # 14 pairs, two epochs


def test_accumulated_gradients_make_one_step(run, material):
    """Twice half a batch differs from one whole batch: ITC and ITM contrast within a batch."""
    changes = {"losses": ["mlm"], "max_epochs": 1}
    half = run(batch_size=7, accumulate_grad_batches=2, **changes)
    assert checkpoint(half, "last.ckpt")["global_step"] == 1
    assert distance(encoder_of(half), start(material)) > 0


def test_the_last_step_of_an_epoch_is_the_mean_of_its_batches_as_well(run, monkeypatch):
    """Three batches, two of them a step: the last is a step alone, and its gradient its own."""
    seen = {}
    for accumulated in (1, 2):
        norms = seen[accumulated] = []

        def note(self, optimizer, norms=norms, **_):
            parameters = optimizer.param_groups[0]["params"]
            norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())

        monkeypatch.setattr(RefinementModule, "configure_gradient_clipping", note)
        words = {"losses": ["itc"], "max_epochs": 1, "lr": 1e-12, "weight_decay": 0.0}
        run(batch_size=5, accumulate_grad_batches=accumulated, **words)
    assert [len(norms) for norms in seen.values()] == [3, 2]
    assert seen[2][-1] == pytest.approx(seen[1][-1], rel=1e-3)


def test_a_single_step_is_a_run(run):
    assert len(column(run(batch_size=64, max_epochs=1), "val/loss")) == 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped(run, material, precision):
    """Below AdamW's epsilon of 1e-8, smaller gradients make smaller steps."""
    changes = {"weight_decay": 0.0, "max_epochs": 1, "precision": precision}
    free, clipped = run(**changes), run(gradient_clip_val=1e-10, **changes)
    ratio = distance(encoder_of(clipped), start(material)) / distance(
        encoder_of(free), start(material)
    )
    assert 0 < ratio < 0.01


def test_patience_ends_a_run_that_stands_still(run):
    still = {"lr": 1e-12, "weight_decay": 0.0, "max_epochs": 6}
    assert len(column(run(patience=1, **still), "val/loss")) == 1 + 2
    assert len(column(run(patience=2, **still), "val/loss")) == 1 + 3


def test_a_patience_that_the_recipe_has_no_use_for_is_said(run, capsys):
    run(recipe="auto", patience=1, max_epochs=1, **UNSET)
    assert "note: --patience 1 has no effect" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("size", [1, 2])
def test_a_pair_alone_says_nothing_of_its_image(run, capsys, size):
    """Dealt out among one, each gets its own again: a loss that does not change would mislead."""
    folder = run(losses=["mlm"], batch_size=size, max_epochs=1)
    has_verdict = size > 1
    assert bool([n for n in metrics_of(folder)[0] if n.startswith("shuffled/")]) == has_verdict
    said = capsys.readouterr().out
    assert any(word in said for word in ("learns", "at chance", "not use")) == has_verdict


def test_max_epochs(run):
    assert len(column(run(max_epochs=3), "train/loss")) == 3


# -- data ----------------------------------------------------------------------------------------


def test_val_fraction_and_val_csv_decide_who_is_tested(base, run, tmp_path, capsys):
    run(val_fraction=0.5, max_epochs=1)
    assert "12 to train on, 12 to validate" in capsys.readouterr().out
    other = write_pairs(tmp_path, pairs=4, patients=2, name="val.csv", first=100)
    run(val_csv=other, max_epochs=1)
    assert "24 to train on, 4 to validate" in capsys.readouterr().out


def test_image_root_and_columns_lead_to_the_same_numbers(base, material, run, tmp_path):
    rows = [["x", report, patient, image] for image, report, patient in read_csv(material.csv)]
    moved = write_csv(tmp_path / "elsewhere" / "t.csv", rows, ("id", "text", "mrn", "file"))
    folder = run(
        train_csv=moved, image_root=material.csv.parent,
        image_column="file", report_column="text", patient_column="mrn",
    )  # fmt: skip
    assert (folder / "metrics.csv").read_bytes() == (base.folder / "metrics.csv").read_bytes()


def test_few_validation_patients_are_said(run, capsys):
    run(max_epochs=1)
    out = capsys.readouterr().out
    assert "Encoder:        too few patients to say whether it is better on your own reports" in out
    assert "5 validation patients)" in out
    assert "try: a larger --val_fraction, or more pairs" in out


def test_what_is_not_measured_is_said(run, capsys):
    folder = run(max_epochs=1, patient_column="none")
    assert "Encoder:        not measured: it is not known which scans are of one patient" in (
        capsys.readouterr().out
    )
    assert not any(name.startswith("guard/") for name in metrics_of(folder)[0])
    assert "guard" not in checkpoint(folder)["retfiner"]


def test_a_data_set_of_ones_own_leads_to_the_same_numbers(base, material, run, capsys):
    root = material.csv.parent
    folder = run(train_csv=None, dataset=f"{root / 'mine.py'}:Pairs", image_root=root)
    assert "Encoder:        not measured: reports and patients are read from a table" in (
        capsys.readouterr().out
    )
    assert metrics_of(folder) == [
        {name: value for name, value in row.items() if not name.startswith("guard/")}
        for row in metrics_of(base.folder)  # the guard goes by a table's patients and reports
    ]


def damaged_copy(material, folder, batch_size):
    """Copy the pairs; one image of the last training batch of the first epoch cannot be decoded."""
    shutil.copytree(material.csv.parent / "images", folder / "images")
    config = settings(material, folder, batch_size=batch_size)
    rows = load_pairs(config, None).train_numbers
    row = rows[list(BalancedBatchSampler(len(rows), batch_size, config.seed, True))[-1][0]]
    table = read_csv(material.csv)
    table[row - 2][0] = "images/damaged.png"
    write_image(folder / "images" / "damaged.png", row)
    damage_in_the_middle(folder / "images" / "damaged.png")
    return write_csv(folder / "pairs.csv", table), row


def test_damage_found_in_training_stops_the_run_and_keeps_what_was_saved(material, run, tmp_path):
    csv, row = damaged_copy(material, tmp_path, batch_size=4)
    with pytest.raises(InputError, match=rf"row {row} of .*pairs\.csv") as caught:
        run(train_csv=csv, batch_size=4, checkpoint_every_n_steps=2, num_workers=2)
    assert "patient-" not in str(caught.value)
    (folder,) = (tmp_path / "models").iterdir()
    assert checkpoint(folder, "last.ckpt")["global_step"] == 2
    assert not (folder / "best-model.ckpt").exists()


def test_last_ckpt_is_written_every_n_steps(material, run, tmp_path):
    csv, _ = damaged_copy(material, tmp_path, batch_size=4)
    with pytest.raises(InputError):
        run(train_csv=csv, batch_size=4, checkpoint_every_n_steps=1000)
    (folder,) = (tmp_path / "models").iterdir()
    assert not (folder / "last.ckpt").exists()


def test_skip_trains_without_damaged_and_missing_images(material, run, tmp_path, capsys):
    csv, row = damaged_copy(material, tmp_path, batch_size=4)
    rows = read_csv(csv)
    rows[-1][0] = "images/nowhere.png"
    write_csv(csv, rows)
    folder = run(train_csv=csv, batch_size=4, on_bad_row="skip", num_workers=2)
    printed = capsys.readouterr().out
    assert "1 rows left out because they cannot be used" in printed
    assert printed.count(f"left out (1 so far): row {row} of") == 1
    assert checkpoint(folder, "last.ckpt")["epoch"] == 2  # epochs done


def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_stays(
    material, run, tmp_path
):
    root = material.csv.parent
    changes = {"train_csv": None, "dataset": f"{root / 'mine.py'}:TurnsBad", "image_root": root}
    with pytest.raises(InputError, match="the loss is not finite: itc, itm, mlm, gm") as caught:
        run(**changes, max_epochs=3)
    assert re.search(r"at epoch 1, batch 1", str(caught.value))
    (folder,) = (tmp_path / "models").iterdir()
    for name, epoch in (("best-model.ckpt", 0), ("last.ckpt", 1)):  # of epoch 0; after it
        found = checkpoint(folder, name)
        assert found["epoch"] == epoch
        assert all(v.isfinite().all() for v in found["state_dict"].values())
    assert len(column(folder, "train/loss")) == 1  # what was measured is kept


def test_weights_that_are_not_finite_are_never_saved(run, tmp_path):
    """The loss of the first step is finite, what the step makes of the weights is not."""
    with pytest.raises(InputError, match="left the finite numbers") as caught:
        run(lr=1e39, batch_size=4, checkpoint_every_n_steps=1)
    assert "a lower --lr" in str(caught.value)
    (folder,) = (tmp_path / "models").iterdir()
    assert not (folder / "last.ckpt").exists()


# -- model and device ----------------------------------------------------------------------------


def test_image_size_interpolates_positions(run):
    folder = run(image_size=64, max_epochs=1)
    assert encoder_of(folder)["pos_embed"].shape == (1, 1 + 8 * 8, 48)
    assert checkpoint(folder)["retfiner"]["image_size"] == 64


def test_backbone_names_what_the_file_does_not_say(run, tmp_path):
    weights = tmp_path / "model.pth"
    torch.manual_seed(0)
    torch.save({"model": small_vit(192, 32, 8, 1, 3).state_dict()}, weights)
    with pytest.raises(InputError, match="several backbones"):
        run(model_weights=weights, image_size=32)
    folder = run(model_weights=weights, image_size=32, backbone="mae", max_epochs=1)
    assert folder.name.startswith("MAE_")
    assert checkpoint(folder)["retfiner"]["backbone"] == "MAE"


def test_a_backbone_that_the_file_contradicts(run):
    with pytest.raises(InputError, match="not a checkpoint of VisionFM"):
        run(backbone="VisionFM")


def test_bfloat16_computes_in_bfloat16_and_stores_float32(base, run):
    folder = run(precision="bf16-mixed", max_epochs=1)
    rough, exact = column(folder, "val/loss"), column(base.folder, "val/loss")[:2]
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.01)
    assert all(v.dtype == torch.float32 for v in checkpoint(folder)["state_dict"].values())
    assert "# precision: bf16-mixed" in (folder / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [{"devices": "0"}, {"devices": "all"}, {"accelerator": "abacus"}],
)
def test_a_device_that_is_not_there(run, changes, tmp_path):
    with pytest.raises(InputError, match="cannot be used as asked"):
        run(**changes)
    assert not list((tmp_path / "models").glob("*")), "no empty run folder is left"


def test_a_checkpoint_of_the_wrong_kind_says_what_to_do_with_it(base, run, material):
    with pytest.raises(InputError, match="training checkpoint") as caught:
        run(model_weights=base.folder / "best-model.ckpt")
    assert "get_vision_backbone_for_linprobing.py" in str(caught.value)
    with pytest.raises(InputError, match="is no checkpoint"):
        run(model_weights=material.csv)


# -- going on ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resumed(material, tmp_path_factory):
    """Two epochs, then two more of the same run, with what was there in between."""
    config = settings(material, tmp_path_factory.mktemp("resumed"), lr=0.02)
    folder = refine(config).folder
    between = shutil.copytree(folder, folder.parent.parent / "between")
    later = settings(
        material, folder.parent / "nowhere", lr=0.02, max_epochs=5, resume=folder, patience=9
    )
    return between, refine(later)


def test_a_resumed_run_goes_on_in_its_folder(resumed):
    between, result = resumed
    folder = result.folder
    assert not (folder.parent / "nowhere").exists()
    old, new = metrics_of(between), metrics_of(folder)
    shared = [name for name in old[0] if name in new[0]]
    assert [[r[n] for n in shared] for r in new[: len(old)]] == [
        [r[n] for n in shared] for r in old
    ]
    epochs = [int(row["epoch"]) for row in new if row["train/loss"]]
    assert epochs == [0, 1, 2, 3, 4]
    steps = [int(row["step"]) for row in new if row["train/loss"]]
    assert steps == [1, 3, 5, 7, 9]
    assert checkpoint(folder, "last.ckpt")["epoch"] == 5


def test_a_resumed_run_keeps_the_right_best_model(resumed):
    _, result = resumed
    losses = column(result.folder, "val/loss")[1:]
    assert checkpoint(result.folder)["epoch"] == int(np.argmin(losses))
    assert result.best["val/loss"] == min(losses)


def test_a_resumed_run_is_the_same_run(resumed):
    between, result = resumed
    ids = [checkpoint(f)["retfiner"]["provenance"]["run_id"] for f in (between, result.folder)]
    assert ids[0] == ids[1]


def test_a_resumed_run_carries_on_what_was_found(base, material, tmp_path):
    """Stopped before it is measured again, a run still says what was found last."""
    folder = shutil.copytree(base.folder, tmp_path / "copy" / base.folder.name)
    config = settings(material, tmp_path, max_epochs=3, resume=folder)
    parts = build(config, read_tables(config))
    module = parts.module
    found = checkpoint(folder, "last.ckpt")
    build_guard(parts.batches, 8)[0].on_load_checkpoint(None, module, found)
    assert module.description["guard"] == found["retfiner"]["guard"]


def test_resuming_goes_on_from_the_optimisers_state(resumed):
    between, result = resumed
    state = checkpoint(result.folder, "last.ckpt")["optimizer_states"][0]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {10}
    assert checkpoint(between, "last.ckpt")["global_step"] == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_was_cut_short_is_ended_with_the_batches_it_lacks(
    material, tmp_path, monkeypatch, workers
):
    """Stopped before the third batch, resumed from a checkpoint after the second."""
    seen = []
    step = RefinementModule.training_step

    def watched(self, batch, batch_idx):
        seen.append((self.current_epoch, batch_idx, batch.rows.tolist()))
        if len(seen) == 3 and not stopped:
            raise InputError("the lights went out")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(RefinementModule, "training_step", watched)
    changes = {"batch_size": 4, "checkpoint_every_n_steps": 2, "num_workers": workers}
    stopped = []
    with pytest.raises(InputError, match="lights"):
        refine(settings(material, tmp_path / "cut", **changes))
    (folder,) = (tmp_path / "cut").iterdir()
    stopped, before, seen = [True], seen[:2], []
    refine(settings(material, tmp_path / "cut", resume=folder, **changes))
    resumed, seen = before + seen, []
    refine(settings(material, tmp_path / "whole", **changes))
    assert resumed == seen
    assert len(column(folder, "train/loss")) == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 1e-4}, "--lr was 0.001, now 0.0001"),
        ({"losses": ["itc"], "seed": 1}, "--losses was .*--seed was 0, now 1"),
        ({"batch_size": 4}, "--batch_size was 8, now 4"),
    ],
)
def test_other_settings_are_refused_by_name(base, material, tmp_path, changes, named):
    before = {path.name: path.stat().st_mtime_ns for path in base.folder.iterdir()}
    with pytest.raises(InputError, match=named) as caught:
        refine(settings(material, tmp_path, resume=base.folder, max_epochs=3, **changes))
    assert "config.yaml" in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in base.folder.iterdir()} == before


def test_other_weights_are_refused(base, material, tmp_path):
    content = torch.load(material.weights, weights_only=True)
    content["model"]["cls_token"] += 1
    torch.save(content, tmp_path / "RETFound_small.pth")
    with pytest.raises(InputError, match="--model_weights holds other bytes"):
        refine(
            settings(material, tmp_path, model_weights=tmp_path / "RETFound_small.pth",
                     resume=base.folder / "last.ckpt")
        )  # fmt: skip


def test_what_cannot_be_resumed(base, material, tmp_path):
    with pytest.raises(InputError, match=r"nothing to resume.*\n.*no file"):
        refine(settings(material, tmp_path, resume=tmp_path))
    with pytest.raises(InputError, match="cannot be resumed"):
        refine(settings(material, tmp_path, resume=material.weights))
