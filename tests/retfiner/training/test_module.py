"""The Lightning module: weighted sum, fixed validation, schedule, what stops a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from retfiner.common.errors import InputError
from retfiner.training.callbacks.epoch_means import EpochMeans
from retfiner.training.module import RefinementModule
from retfiner.training.recall import retrieval_recall
from tests.helpers.small import random_batch, small_model

ALL = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "gm": 1.0}


def make_module(weights=ALL, **options):
    return RefinementModule(small_model(), weights, **options)


def quiet_trainer(**options):
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, **options,
    )  # fmt: skip


def run(module, epochs=1, batches=3):
    data = [random_batch(seed=s) for s in range(batches)]
    loader = DataLoader(data, batch_size=None)
    trainer = quiet_trainer(max_epochs=epochs, callbacks=[EpochMeans()])
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


def gradients(weights, **options):
    """Return those of the first step, by the part of the model."""
    module = make_module(weights, seed=3, **options)
    batch = random_batch()
    torch.manual_seed(0)
    encoded = module.model.encode(batch, True, True, module.fusion_warmup_steps == 0)
    module._weighted_sum(module._losses_of(batch, encoded, "train", 0, 0)).backward()
    return {name: p.grad for name, p in module.model.named_parameters() if p.grad is not None}


def test_in_the_warm_up_of_fusion_the_contrast_alone_trains_the_vision_encoder():
    alone, together = gradients({"itc": 1.0}), gradients(ALL)
    waiting = gradients(ALL, fusion_warmup_steps=1)
    seen = 0
    for name, gradient in alone.items():
        if name.startswith(("vision_encoder.", "vision_proj.")):
            torch.testing.assert_close(waiting[name], gradient, rtol=1e-4, atol=1e-6)
            seen += not torch.allclose(together[name], gradient, rtol=1e-2)
    assert seen > 5
    crossing = [name for name in waiting if ".crossattention." in name]
    assert crossing
    for name in crossing:
        torch.testing.assert_close(waiting[name], together[name], rtol=1e-4, atol=1e-6)


def test_the_warm_up_of_fusion_ends_at_its_step():
    modules = [make_module(fusion_warmup_steps=steps) for steps in (0, 2, 9)]
    for module in modules:
        torch.manual_seed(0)
        run(module)  # three steps
    first, ended, whole = (m.model.vision_encoder.blocks[0].mlp.fc1.weight for m in modules)
    assert not torch.equal(first, ended)
    assert not torch.equal(ended, whole)


def test_the_same_weights_give_the_same_validation_twice():
    module = make_module().eval()
    batch = random_batch()
    first, second = (module._batch_losses(batch, "validation", 0, 3)[0] for _ in range(2))
    other = module._batch_losses(batch, "validation", 0, 4)[0]
    assert all(torch.equal(first[name], second[name]) for name in ALL)
    assert not torch.equal(first["mlm"], other["mlm"])


def test_a_loss_does_not_depend_on_which_others_are_active():
    batch = random_batch()
    together = make_module().eval()._batch_losses(batch, "validation", 0, 0)[0]
    for name in ALL:
        alone = make_module({name: 3.0}).eval()._batch_losses(batch, "validation", 0, 0)[0]
        assert alone.keys() == {name}
        torch.testing.assert_close(alone[name], together[name])


def test_another_seed_hides_other_tokens_in_validation():
    batch = random_batch()
    first, other = (
        make_module(seed=s).eval()._batch_losses(batch, "validation", 0, 0)[0] for s in (0, 1)
    )
    assert torch.equal(first["itc"], other["itc"]), "nothing is drawn for ITC"
    assert not torch.equal(first["mlm"], other["mlm"])
    assert not torch.equal(first["gm"], other["gm"])


def test_validating_twice_gives_the_same_numbers_whatever_was_drawn_before():
    module = make_module()
    loader = DataLoader([random_batch(seed=s) for s in range(2)], batch_size=None)
    trainer = quiet_trainer()
    first = trainer.validate(module, loader, verbose=False)[0]
    torch.manual_seed(123)
    assert trainer.validate(module, loader, verbose=False)[0] == first
    assert {f"val/{name}" for name in (*ALL, "loss")} < first.keys()


def test_validation_weighs_pairs_alike_and_recall_is_of_all_of_them():
    """A last batch of two pairs counts as two pairs; candidates are not only the batch's."""
    module = make_module({"itc": 1.0}).eval()
    batches = [
        random_batch(6, seed=0)._replace(report_ids=torch.tensor([9, 1, 2, 3, 4, 5])),
        random_batch(2, seed=1)._replace(
            report_ids=torch.tensor([9, 7]), image_ids=torch.tensor([6, 7])
        ),
    ]
    loader = DataLoader(batches, batch_size=None)
    metrics = quiet_trainer().validate(module, loader, verbose=False)[0]
    with torch.no_grad():
        done = [module._batch_losses(b, "validation", 0, i) for i, b in enumerate(batches)]
    (first, encoded_first), (second, encoded_second) = done
    expected = (6 * first["itc"] + 2 * second["itc"]) / 8
    assert metrics["val/itc"] == pytest.approx(expected.item(), rel=1e-6)
    recall = retrieval_recall(
        torch.cat([encoded_first.image_embedding, encoded_second.image_embedding]),
        torch.cat([encoded_first.text_embedding, encoded_second.text_embedding]),
        torch.cat([b.report_ids for b in batches]),
    )
    assert {k: metrics[f"val/{k}"] for k in recall} == pytest.approx(recall)
    # Seven distinct reports of eight images: one report is found by either of two.
    assert metrics["chance/image_to_text_recall@5"] == pytest.approx(5 / 7)
    by_chance = (6 * 5 / 8 + 1 - 6 / 56) / 7
    assert metrics["chance/text_to_image_recall@5"] == pytest.approx(by_chance)


def test_no_recall_without_anything_to_compare():
    metrics = run(make_module({"mlm": 1.0, "gm": 1.0}), batches=1)
    assert not [name for name in metrics if "recall" in name]


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
    module.trainer = SimpleNamespace(
        estimated_stepping_batches=10,
        precision_plugin=SimpleNamespace(scaler=None),
        gradient_clip_val=None,
    )
    groups = module.configure_optimizers()["optimizer"].param_groups
    decays = {group["name"]: group["weight_decay"] for group in groups}
    assert decays == {"new": 0.3, "temperature": 0.0, "text": 0.3, "vision": 0.3}
    assert groups[1]["params"] == [module.model.contra_temp]
    assert sum(len(g["params"]) for g in groups) == len(list(module.model.parameters()))


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_changes():
    module = make_module()
    batch = random_batch()
    batch.images[2, 0, 0, 0] = float("nan")
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    with pytest.raises(InputError) as caught:
        quiet_trainer(max_epochs=1).fit(module, DataLoader([batch], batch_size=None))
    message = str(caught.value)
    assert "not finite: itc, itm, mlm, gm" in message
    assert "epoch 0, batch 0" in message
    assert "mend the images of pairs 2;" in message
    assert all(torch.equal(p, before[n]) for n, p in module.model.named_parameters())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_batch_that_is_looked_at_late_has_changed_nothing(
    place, accumulate, monkeypatch, tmp_path
):
    """As on a GPU: the next batch, the checkpoint or the validation after it looks."""
    monkeypatch.setattr(RefinementModule, "_looks_late", lambda *_: True)
    torch.manual_seed(0)
    module = make_module()
    batches = [random_batch(seed=s) for s in range(4)]
    batches[place].images[2, 0, 0, 0] = float("nan")
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == place - place % accumulate:  # where the step with the bad batch begins
                seen.append([p.detach().clone() for p in pl_module.parameters()])

        def on_train_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    trainer = quiet_trainer(
        max_epochs=1, callbacks=[Watch()], accumulate_grad_batches=accumulate, gradient_clip_val=1.0
    )
    with pytest.raises(InputError, match="not finite: itc, itm, mlm, gm") as caught:
        trainer.fit(module, DataLoader(batches, batch_size=None))
    assert f"epoch 0, batch {place}, pairs" in str(caught.value)
    assert "mend the images of pairs 2;" in str(caught.value)
    assert all(torch.equal(*pair) for pair in zip(seen[0], module.parameters(), strict=True))
    assert not (tmp_path / "last.ckpt").exists()


def test_looking_late_changes_no_number_of_a_good_run(monkeypatch):
    found = []
    for is_late in (False, True):
        monkeypatch.setattr(RefinementModule, "_looks_late", lambda *_, is_late=is_late: is_late)
        torch.manual_seed(0)
        module = make_module(lr=1e-3)
        metrics = run(module, epochs=2)
        found.append((metrics, [p.detach().clone() for p in module.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))


def test_an_image_that_is_not_finite_stops_validation_as_well():
    module, batch = make_module(), random_batch()
    batch.images[4, 0, 0, 0] = float("inf")
    loader = DataLoader([random_batch(seed=1), batch], batch_size=None)
    with pytest.raises(InputError, match="not finite: itc, itm, mlm, gm") as caught:
        quiet_trainer().validate(module, loader, verbose=False)
    assert "epoch 0, validation batch 1" in str(caught.value)
    assert "mend the images of pairs 4;" in str(caught.value)


def test_where_images_are_sound_the_remedy_is_about_arithmetic():
    module, batch = make_module({"itc": 1.0, "mlm": 1.0}), random_batch()
    with torch.no_grad():
        module.model.contra_temp.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite: itc\n") as caught:
        module.training_step(batch, 0)
    message = str(caught.value)
    assert "--lr" in message and "pairs 0, 1, 2, 3, 4, 5" in message
    assert "itc = nan" in message and "mlm = nan" not in message


def test_the_temperature_stays_positive_through_steps_far_too_large():
    module = make_module({"itc": 1.0}, lr=5.0)
    run(module, epochs=2)
    assert module.model.temperature > 0


def test_checkpoints_carry_the_description():
    module = make_module(description={"backbone": "RETFound"})
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["retfiner"] == {"backbone": "RETFound"}
