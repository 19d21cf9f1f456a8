"""Weights split over processes compute what one process computes, and each holds its share."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from retfiner.training.adaptation import checkpoint_activations
from retfiner.training.distributed.collectives import all_reduce_mean
from retfiner.training.distributed.fsdp import WHOLE, average_gradients, clip_by_norm, shard
from retfiner.training.precision import precision_plugin
from retfiner.vision.adaptation import add_lora, unfreeze_last
from tests.helpers.processes import share_of, together
from tests.helpers.small import fill, random_batch
from tests.retfiner.training.distributed.test_collectives import REPORTS, Step
from tests.retfiner.training.test_precision import Conversions

ALL = ["itc", "itm", "mlm", "gm"]
BATCHES = 2
"""Batches of an optimiser step: gradients add up."""


class Losses(Step):
    """A step that gives the losses alone, of a model that is trained in part."""

    def __init__(self, losses, tuning, **options):
        super().__init__(losses, **options)
        encoder = self.model.vision_encoder
        if "lora" in tuning:
            add_lora(encoder, 2, 2.0)
            fill(self.model.double())
        if "last" in tuning:
            unfreeze_last(encoder, 1)
        if "frozen" in tuning:
            unfreeze_last(encoder, 0)
        if "checkpointed" in tuning:
            checkpoint_activations(self.model)

    def forward(self, batch):
        return super().forward(batch)[0]


def reports(batch):
    return batch._replace(report_ids=REPORTS)


def optimizer_of(step):
    parameters = [p for p in step.parameters() if p.requires_grad]
    groups = [[p for p in parameters if p.ndim > 0], [p for p in parameters if p.ndim == 0]]
    return torch.optim.AdamW([{"params": g} for g in groups if g], lr=0.01, fused=True)


def whole(tensors):
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in tensors.items()
    }


def two_steps(forward, step, batch, after_backward=lambda: None):
    """Train for two steps; losses, gradients before and after clipping, and weights of the last."""
    optimizer = optimizer_of(step)
    trained = {name: p for name, p in step.named_parameters() if p.requires_grad}
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(BATCHES):
            values = forward(batch)
            (sum(values.values()) / BATCHES).backward()
            after_backward()
        gradients = whole({name: p.grad for name, p in trained.items()})
        clip_by_norm(trained.values(), 0.5)
        clipped = whole({name: p.grad for name, p in trained.items()})
        optimizer.step()
    losses = all_reduce_mean(torch.stack([v.detach() for v in values.values()]))
    return losses, gradients, clipped, whole(trained), optimizer


def one(losses, options, tuning):
    step = Losses(losses, tuning, **options)
    return two_steps(step, step, reports(random_batch(8)))[:-1]


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def several(rank, losses, sizes, options, tuning):
    """The same with a part of the batch and a share of the weights, and how much was held."""
    step = Losses(losses, tuning, **options)
    shard(step, step.model, ["forward"], init_device_mesh("cpu", (len(sizes),)))
    batch = share_of(reports(random_batch(8)), sizes, rank)
    *numbers, optimizer = two_steps(step, step, batch, lambda: average_gradients(step))
    parameters = [p for p in step.parameters() if p.requires_grad]
    states = [s[k] for s in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    held = [
        sum(local(value).numel() for value in values) / sum(value.numel() for value in values)
        for values in (list(step.parameters()), parameters, [p.grad for p in parameters], states)
    ]
    return numbers, held


@pytest.mark.parametrize(
    ("sizes", "losses", "options", "tuning"),
    [
        ([5, 3], ALL, {}, []),
        pytest.param(
            [3, 2, 2, 1], ALL, {"exponential_temp": True}, ["checkpointed"], marks=pytest.mark.slow
        ),
        ([3, 5], ["mlm", "gm"], {"vision_width": 32}, ["last"]),
        ([5, 3], ["itc"], {}, ["frozen", "checkpointed"]),
        pytest.param([4, 4], ["itm", "mlm"], {}, ["lora", "checkpointed"], marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
def test_numbers_are_those_of_one_process(tmp_path, sizes, losses, options, tuning):
    expected = one(losses, options, tuning)
    for found, held in together(len(sizes), tmp_path, several, losses, sizes, options, tuning):
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-8)
        for numbers, reference in zip(found[1:], expected[1:], strict=True):
            assert numbers.keys() == reference.keys()
            for name, value in reference.items():
                torch.testing.assert_close(numbers[name], value, rtol=0, atol=1e-8, msg=name)
        for share in held:
            assert share == pytest.approx(1 / len(sizes), rel=0.03)


def test_whole_gradients_are_clipped_as_torch_clips_them():
    steps = [Losses(["itc"], []) for _ in range(2)]
    for step, clip in zip(steps, (clip_by_norm, torch.nn.utils.clip_grad_norm_), strict=True):
        sum(step(reports(random_batch(8))).values()).backward()
        clip((p for p in step.parameters()), 0.1)
    for one, two in zip(*(step.parameters() for step in steps), strict=True):
        assert one.grad is two.grad is None or torch.equal(one.grad, two.grad)


def units(rank):
    """Look while a block computes: whose weights are split?"""
    step = Losses(ALL, [])
    shard(step, step.model, ["forward"], init_device_mesh("cpu", (2,)))
    block = step.model.vision_encoder.blocks[1]
    layer = step.model.multimodal_encoder.layers[0]
    seen = {}
    block.register_forward_pre_hook(
        lambda *_: seen.update(
            block=isinstance(block.attn.qkv.weight, DTensor),
            layer=isinstance(layer.attention.self.key.weight, DTensor),
            head=isinstance(step.model.itm_head.linear1.weight, DTensor),
        )
    )
    step(share_of(reports(random_batch(8)), [4, 4], rank))
    return seen, all(isinstance(p, DTensor) for p in step.parameters() if p.ndim > 0)


def kept(rank):
    step = Losses(ALL, [])
    before = {name: value.clone() for name, value in step.state_dict().items()}
    shard(step, step.model, ["forward"], init_device_mesh("cpu", (2,)))
    found = get_model_state_dict(step, options=WHOLE)
    if rank > 0:
        return not found
    return all(torch.equal(found[name], before[name]) for name in before)


def test_whole_weights_are_the_first_processs_alone(tmp_path):
    assert together(2, tmp_path, kept) == [True, True]


def test_a_block_is_gathered_where_it_computes_and_nothing_between_steps(tmp_path):
    for seen, is_split_again in together(2, tmp_path, units):
        assert seen == {"block": False, "layer": True, "head": False}
        assert is_split_again


def mixed(rank, kind, plugin):
    """Losses and gradients in bfloat16 before and after all weights have changed."""
    step = Losses(ALL, []).float()
    batch = reports(random_batch(8))
    batch = share_of(batch._replace(images=batch.images.float()), [5, 3], rank)
    wrapped = DistributedDataParallel(step) if kind == "copied" else step
    if kind == "split":
        shard(step, step.model, ["forward"], init_device_mesh("cpu", (2,)))
    found = []
    for _ in range(2):
        step.zero_grad()
        conversions = Conversions(step)
        with plugin.forward_context(), conversions:
            values = wrapped(batch)
        sum(values.values()).backward()
        average_gradients(step)
        losses = all_reduce_mean(torch.stack([v.detach() for v in values.values()]))
        gradients = whole({n: p.grad for n, p in step.named_parameters()})
        found.append((losses, gradients, conversions.counts.total()))
        with torch.no_grad():
            for parameter in step.parameters():
                parameter.mul_(0.9)
    return found


@pytest.mark.slow
def test_weights_that_are_kept_in_bfloat16_are_never_stale(tmp_path):
    """Autocast keeps a converted weight for a step, in which its source is let go of and gathered.

    Split or copied, losses are the same to the bit, and so are gradients but where activations'
    add up in another order.
    """
    caching = precision_plugin("bf16-mixed", "cpu")
    split = together(2, tmp_path, mixed, "split", caching)[0]
    copied = together(2, tmp_path, mixed, "copied", caching)[0]
    plain = together(2, tmp_path, mixed, "split", MixedPrecision("bf16-mixed", "cpu"))[0]
    for found, expected, without_cache in zip(split, copied, plain, strict=True):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[0], without_cache[0])
        same = [torch.equal(found[1][name], gradient) for name, gradient in expected[1].items()]
        assert sum(same) > len(same) / 2
        for name, gradient in expected[1].items():
            scale = gradient.abs().max() + 1e-12
            assert (found[1][name] - gradient).abs().max() / scale < 0.02, name  # sums in bfloat16
        assert found[2] == expected[2] < without_cache[2], "each weight is converted once"
    assert not torch.equal(split[0][0], split[1][0])
