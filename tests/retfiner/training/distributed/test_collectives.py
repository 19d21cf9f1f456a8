"""Several processes compute what one computes with the joined batch: losses, gradients, metrics."""

from __future__ import annotations

import os
import time

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.data.batch import Collated
from retfiner.losses import build_losses
from retfiner.training.adaptation import freeze_unread
from retfiner.training.distributed.collectives import (
    all_gather_objects,
    all_gather_rows,
    all_reduce_mean,
    broadcast_parameters,
)
from retfiner.training.distributed.join import BatchJoiner
from retfiner.training.module import RefinementModule
from tests.helpers.processes import share_of, together
from tests.helpers.small import random_batch, small_model

REPORTS = torch.tensor([4, 1, 2, 4, 3, 7, 2, 9])
"""Equal reports within a process and across processes, whatever the split."""
IMAGES = torch.tensor([0, 1, 2, 3, 4, 2, 6, 1])
"""Equal images likewise."""
MATCHES_ALL = (torch.tensor([0, 0, 0, 0, 1, 2, 3, 4]), torch.tensor([5, 0, 1, 2, 5, 5, 5, 5]))
"""Pair 0 has its report or its image in common with every other, which have nothing in common."""


class Step(torch.nn.Module):
    """What a training step computes, as the module that data-parallel training wraps."""

    def __init__(self, losses, **options):
        super().__init__()
        parts = {} if {"itc", "itm"} & set(losses) else {"contrastive_dim": None}
        if "itm" not in losses:
            parts["itm_head"] = None
        self.model = small_model(**parts, **options)
        self.losses = build_losses(losses, self.model.contrast)
        freeze_unread(self.model, self.losses.values())

    def forward(self, batch):
        encoded = self.model.encode(
            batch,
            any(loss.uses_similarity for loss in self.losses.values()),
            any(loss.uses_fusion for loss in self.losses.values()),
        )
        values = {
            name: loss(self.model, batch, encoded, generator(0, name))
            for name, loss in self.losses.items()
        }
        return values, encoded


def batch_of(ids):
    return random_batch(8)._replace(report_ids=ids[0], image_ids=ids[1])


def one(losses, options, ids):
    """Losses and gradients of one process."""
    step = Step(losses, **options)
    values, encoded = step(batch_of(ids))
    sum(values.values()).backward()
    gradients = {name: p.grad for name, p in step.named_parameters() if p.requires_grad}
    return {name: value.detach() for name, value in values.items()}, gradients, encoded


def several(rank, losses, sizes, options, ids):
    """The same with a part of the batch; twice, since wrong use of DDP shows in a second step."""
    step = DistributedDataParallel(Step(losses, **options))
    for _ in range(2):
        step.zero_grad()
        values, encoded = step(share_of(batch_of(ids), sizes, rank))
        sum(values.values()).backward()
    stacked = all_reduce_mean(torch.stack(list(values.values())))
    gradients = {name: p.grad for name, p in step.module.named_parameters() if p.requires_grad}
    embedded = encoded.image_embedding
    return (
        dict(zip(values, stacked, strict=True)),
        gradients,
        None if embedded is None else embedded.detach(),
    )


@pytest.mark.parametrize(
    ("sizes", "losses", "options"),
    [
        ([5, 3], ["itc"], {}),
        ([4, 4], ["itm"], {}),
        ([3, 5], ["mlm"], {"redraw_masks": True, "random_token_from": 50}),
        ([5, 3], ["gm"], {}),
        ([5, 3], ["itc", "itm", "mlm", "gm"], {"duplicate_reports": "ignore"}),
        ([3, 2, 2, 1], ["itc", "itm", "mlm", "gm"], {"exponential_temp": True}),
        ([5, 3], ["itc", "itm", "mlm", "gm"], {"chunk_size": 2}),
        ([5, 3], ["itc", "itm"], {"contrast": "sigmoid"}),
        ([3, 5], ["itc", "itm"], {"duplicate_reports": "similar"}),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
def test_losses_and_gradients_are_those_of_one_process(tmp_path, sizes, losses, options):
    assert_as_one(tmp_path, sizes, losses, options, (REPORTS, IMAGES))


def test_a_pair_without_negatives_counts_once_in_whichever_process(tmp_path):
    assert_as_one(tmp_path, [5, 3], ["itc", "itm"], {}, MATCHES_ALL)


def assert_as_one(tmp_path, sizes, losses, options, ids):
    expected, gradients, encoded = one(losses, options, ids)
    given = (losses, sizes, options, ids)
    for values, found, embedded in together(len(sizes), tmp_path, several, *given):
        for name in losses:
            assert values[name].item() == pytest.approx(expected[name].item(), abs=1e-8)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient is not None, name
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-8, msg=name)
        if embedded is not None:
            torch.testing.assert_close(embedded, encoded.image_embedding.detach())


def validated(rank, sizes):
    """What a validation batch logs; alone, where there is no size."""
    module = RefinementModule(small_model(), dict.fromkeys(["itc", "itm", "mlm", "gm"], 1.0)).eval()
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    batch = batch_of((REPORTS, IMAGES))
    with torch.no_grad():
        module.validation_step(share_of(batch, sizes, rank) if sizes else batch, 0)
    return logged


def test_a_validation_batch_is_that_of_one_process(tmp_path):
    """Also with the images dealt out anew, of which a process alone may hold but one."""
    alone, sizes = validated(0, None), [5, 2, 1]
    assert {f"shuffled/{name}" for name in ("itc", "itm", "mlm", "gm")} < alone.keys()
    for logged in together(len(sizes), tmp_path, validated, sizes):
        assert logged.keys() == alone.keys()
        assert logged == pytest.approx(alone, abs=1e-8)


def talk(rank):
    rows = torch.full((rank + 1, 2), float(rank), requires_grad=True)
    gathered = all_gather_rows(rows, [1, 2, 3])
    (gathered * torch.arange(6.0)[:, None] * (rank + 1)).sum().backward()
    return all_gather_objects(("process", rank)), gathered.detach(), rows.grad


def test_processes_talk(tmp_path):
    for rank, (said, gathered, gradient) in enumerate(together(3, tmp_path, talk)):
        assert said == [("process", 0), ("process", 1), ("process", 2)]
        assert gathered[:, 0].tolist() == [0, 1, 1, 2, 2, 2]
        own = torch.arange(6.0)[sum(range(rank + 1)) :][: rank + 1]
        assert gradient[:, 0].tolist() == (6 * own).tolist()  # 1 + 2 + 3 from the three


def copy(rank):
    module = torch.nn.BatchNorm1d(3)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data.fill_(7 + rank)
    broadcast_parameters(module)
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]


def test_all_begin_with_the_first_ones_weights(tmp_path):
    for found in together(2, tmp_path, copy):
        assert len(found) == 5 and all((tensor == 7).all() for tensor in found)


def test_alone_nothing_is_exchanged():
    assert all_gather_objects("x") == ["x"]
    values = torch.ones(3)
    assert all_reduce_mean(values) is values


@pytest.mark.parametrize("losses", [["itc"], ["itm"], ["mlm"], ["itc", "gm"], ["itm", "mlm"]])
def test_what_trains_is_what_gets_a_gradient(losses):
    """DDP waits for the gradient of every parameter that trains."""
    step = Step(losses)
    values, _ = step(random_batch())
    sum(values.values()).backward()
    for name, parameter in step.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def hand_over(rank):
    """Process 1 holds an image that cannot be read, and before that leaves one out."""
    join = BatchJoiner()
    batch = random_batch(3)
    fine = join(Collated(batch, [(7 + rank, f"row {7 + rank}")]))
    broken = InputError("row 9 cannot be read", remedy="mend it")
    try:
        join(Collated(broken if rank == 1 else batch, []))
    except InputError as error:
        return fine.joined._replace(gather=None), join.left_out, str(error)
    return None


def test_an_image_that_one_process_cannot_read_ends_all_of_them(tmp_path):
    for rank, (joined, left_out, message) in enumerate(together(2, tmp_path, hand_over)):
        assert joined.sizes == (3, 3) and joined.rank == rank
        assert list(left_out.values()) == ["row 7", "row 8"]
        assert "row 9 cannot be read" in message and "mend it" in message


def not_finite(rank):
    """Without ITC and ITM, a process sees nothing of the others' images."""
    model = small_model(contrastive_dim=None, itm_head=None)
    module = RefinementModule(model, {"mlm": 1.0})
    batch = share_of(random_batch(8), [5, 3], rank)
    if rank == 1:
        batch.images[1, 0, 0, 0] = float("nan")  # pair 6
    try:
        module.training_step(batch, 3)
    except InputError as error:
        return str(error)
    return None


def test_a_loss_that_is_not_finite_in_one_process_ends_all_of_them(tmp_path):
    for message in together(2, tmp_path, not_finite):
        assert "not finite: mlm" in message
        assert "mend the images of pairs 6;" in message
        assert "pairs 0, 1, 2, 3, 4, 5, 6, 7" in message


def die(rank):
    all_gather_objects(rank)
    if rank == 1:
        os._exit(0)  # no goodbye
    begun = time.monotonic()
    try:
        all_gather_objects(rank)
    except RuntimeError as error:
        return str(error), time.monotonic() - begun
    return None


def test_a_process_that_died_is_not_waited_for(tmp_path):
    message, waited = together(2, tmp_path, die, returning=[0])[0]
    assert "another process of this run has ended" in message
    assert waited < 30
