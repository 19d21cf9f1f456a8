"""Fine-tuning: what trains and what does not, and that it goes on where it was cut off."""

import dataclasses

import numpy as np
import pytest
import torch

from linprobe.datasets import read_data_set
from linprobe.probes import finetune
from linprobe.probes.finetune import Finetuning, Tuned
from linprobe.probing import Sweep, run_sweep
from linprobe.task import ProbingTask
from linprobe.weights import candidates
from retfiner.common.errors import InputError
from retfiner.common.predictions import find_runs, read_run
from tests.helpers.probing_data import CLASSES, small_probe, write_data_set
from tests.helpers.refinement import write_base_model

QUICK = {"probe": "finetune", "views": None, "finetune_epochs": 12, "finetune_warmup": 2,
         "finetune_lr": 3e-3, "seed": [0]}  # fmt: skip


@pytest.fixture
def task(tmp_path):
    def build(**changes):
        config = small_probe(tmp_path, **(QUICK | changes))
        sweep = Sweep(config, candidates(config)[0])
        return ProbingTask(read_data_set(config.data_root / "OCTID"), sweep.extractor, config)

    return build


def scores(path):
    return read_run(path)[0][[f"p_{name}" for name in CLASSES]].to_numpy()


def test_it_learns_and_says_what_it_did(tmp_path):
    write_data_set(tmp_path / "data" / "OCTID", {"train": 72, "val": 36, "test": 72})
    write_base_model(tmp_path / "base.pth")
    config = small_probe(tmp_path, **(QUICK | {"finetune_epochs": 30}))
    _, [summary] = run_sweep(config)
    assert summary.scores[0] > 0.5 > summary.chance + 0.15
    [path] = find_runs(config.results)
    about = read_run(path)[1]
    assert about["settings"]["adapt"] == "full" and "lora_rank" not in about["settings"]
    assert about["context"]["best_epoch"] >= 1
    assert {p.name for p in path.iterdir()} == {"run.json", "predictions.csv", "learning_curve.csv"}
    assert not list((config.results / ".unfinished").glob("*"))
    assert run_sweep(config)[1][0].skipped == 1


@pytest.mark.parametrize("adapt", ["full", "last", "lora"])
def test_just_what_was_asked_for_trains_and_the_backbone_itself_never(task, adapt):
    one = task(adapt=adapt, **({"unfreeze_last": 1} if adapt == "last" else {}))
    frozen = {n: t.clone() for n, t in one.extractor.backbone.encoder.state_dict().items()}
    tuning = Finetuning(one, 0, np.arange(24))
    before = {n: p.detach().clone() for n, p in tuning.model.named_parameters()}
    tuning._epoch(3)
    moved = {n for n, p in tuning.model.named_parameters() if not torch.equal(p, before[n])}
    blocks = len(tuning.model.backbone.blocks)
    if adapt == "lora":
        assert all("lora_" in name or name.startswith("head") for name in moved)
        assert any("lora_B" in name for name in moved)
    elif adapt == "last":
        allowed = (f"encoder.blocks.{blocks - 1}.", "encoder.norm", "head.")
        assert all(name.startswith(allowed) for name in moved)
    else:
        assert "encoder.patch_embed.proj.weight" in moved and "encoder.cls_token" in moved
    assert "head.weight" in moved
    for name, tensor in one.extractor.backbone.encoder.state_dict().items():
        assert torch.equal(tensor, frozen[name])


def test_learning_rates_fall_from_layer_to_layer_and_biases_do_not_decay(task):
    model = Tuned(task(), 0)
    groups = model.groups(1e-3, 0.5, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    rate = {names[id(p)]: (g["peak"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert rate.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    depth = len(model.backbone.blocks)
    for k in range(depth):
        share = 0.5 ** (depth - 1 - k)
        assert rate[f"encoder.blocks.{k}.mlp.fc1.weight"] == (pytest.approx(1e-3 * share), 0.05)
        assert rate[f"encoder.blocks.{k}.mlp.fc1.bias"][1] == 0
    assert rate["encoder.patch_embed.proj.weight"][0] == pytest.approx(1e-3 * 0.5**depth)
    assert rate["head.weight"] == (1e-3, 0.05)


def test_an_interrupted_training_comes_out_as_if_it_had_not_been(tmp_path, monkeypatch):
    config = small_probe(tmp_path, **QUICK)
    run_sweep(dataclasses.replace(config, results=tmp_path / "whole"))
    monkeypatch.setattr(finetune, "SAVE_EVERY", 0.0)
    epoch_of = Finetuning._epoch

    def cut_off(self, epoch):
        if epoch == 6:
            raise KeyboardInterrupt
        epoch_of(self, epoch)

    monkeypatch.setattr(Finetuning, "_epoch", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config)
    assert len(list((config.results / ".unfinished").iterdir())) == 1
    done = []
    monkeypatch.setattr(Finetuning, "_epoch", lambda self, k: (done.append(k), epoch_of(self, k)))
    run_sweep(config)
    assert done[0] == 6
    whole, resumed = (find_runs(folder)[0] for folder in (tmp_path / "whole", config.results))
    np.testing.assert_array_equal(scores(whole), scores(resumed))
    assert not list((config.results / ".unfinished").iterdir())


def test_too_many_blocks_and_flags_without_effect_are_errors(task, tmp_path):
    with pytest.raises(InputError, match="more than there are blocks"):
        Finetuning(task(adapt="last", unfreeze_last=99), 0, np.arange(24))
    with pytest.raises(InputError, match="--lora_rank would have no effect"):
        small_probe(tmp_path, **QUICK, lora_rank=4)
    with pytest.raises(InputError, match="whole training"):
        small_probe(tmp_path, **(QUICK | {"finetune_warmup": 12}))
