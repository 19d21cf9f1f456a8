"""The Lightning module: weighted sum, fixed validation, schedule, what stops a run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from retfiner.common.errors import InputError
from retfiner.module import RefinementModule
from tests.helpers.small import random_batch, small_model

ALL = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "gm": 1.0}


def make_module(weights=ALL, **options):
    return RefinementModule(small_model(), weights, **options)


def run(module, epochs=1, batches=3):
    data = [random_batch(seed=s) for s in range(batches)]
    loader = DataLoader(data, batch_size=None)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_training_mode_whatever_the_parts_came_in():
    module = make_module()
    assert all(part.training for part in module.model.modules())


def test_total_is_the_weighted_sum_and_each_loss_is_logged_by_name():
    weights = {"itc": 2.0, "mlm": 0.5}
    metrics = run(make_module(weights))
    for phase in ("train", "val"):
        expected = sum(w * metrics[f"{phase}/{name}"] for name, w in weights.items())
        assert metrics[f"{phase}/loss"] == pytest.approx(expected, rel=1e-5)
        assert f"{phase}/itm" not in metrics
    assert {f"val/image_to_text_recall@{k}" for k in (1, 5, 10)} <= metrics.keys()


def test_the_same_weights_give_the_same_validation_twice():
    module = make_module().eval()
    batch = random_batch()
    first, second = (module._batch_losses(batch, "validation", 0, 3)[0] for _ in range(2))
    other = module._batch_losses(batch, "validation", 0, 4)[0]
    assert all(torch.equal(first[name], second[name]) for name in ALL)
    assert not torch.equal(first["mlm"], other["mlm"])


def test_training_hides_other_tokens_each_epoch():
    module = make_module().eval()
    batch = random_batch()
    epochs = [module._batch_losses(batch, "train", epoch, 0)[0]["gm"] for epoch in (0, 1)]
    assert not torch.equal(*epochs)


def test_every_parameter_learns_but_those_no_loss_reads():
    torch.manual_seed(0)
    module = make_module(lr=1e-3)
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    run(module)
    still = {n for n, p in module.model.named_parameters() if torch.equal(p, before[n])}
    assert not still


def test_temperature_has_no_weight_decay():
    module = make_module(weight_decay=0.3)
    module.trainer = SimpleNamespace(estimated_stepping_batches=10)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert groups[1]["params"] == [module.model.contra_temp]
    assert sum(len(g["params"]) for g in groups) == len(list(module.model.parameters()))


def test_learning_rate_schedule():
    constant = make_module(warmup_steps=4)
    assert [constant.lr_factor(s, 100) for s in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert constant.lr_factor(4, 100) == constant.lr_factor(99, 100) == 1.0
    cosine = make_module(lr_schedule="cosine", warmup_steps=10)
    assert cosine.lr_factor(10, 110) == 1.0
    assert cosine.lr_factor(60, 110) == pytest.approx(0.5)
    assert cosine.lr_factor(35, 110) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert cosine.lr_factor(110, 110) == pytest.approx(0.0)


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_changes():
    module = make_module()
    batch = random_batch()
    batch.images[2, 0, 0, 0] = float("nan")
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        trainer.fit(module, DataLoader([batch], batch_size=None))
    message = str(caught.value)
    assert "not finite: itc, itm, mlm, gm" in message
    assert "epoch 0, batch 0" in message
    assert "remedy" in message and "2" in message
    assert all(torch.equal(p, before[n]) for n, p in module.model.named_parameters())


def test_the_temperature_stays_positive_through_steps_far_too_large():
    module = make_module({"itc": 1.0}, lr=5.0)
    run(module, epochs=2)
    assert module.model.temperature > 0


def test_checkpoints_carry_the_description():
    module = make_module(description={"backbone": "RETFound"})
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["retfiner"] == {"backbone": "RETFound"}
