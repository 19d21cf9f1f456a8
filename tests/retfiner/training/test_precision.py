"""Mixed precision: each weight is converted once a step, and numbers stay those of autocast."""

from collections import Counter

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.utils._python_dispatch import TorchDispatchMode

from retfiner.common.seeds import generator
from retfiner.losses import LOSSES, build_losses, losses_together
from retfiner.training import precision as precision_room
from retfiner.training.precision import (
    CachingMixedPrecision,
    is_made_for_bfloat16,
    precision_plugin,
    resolve_precision,
)
from tests.helpers.small import random_batch, small_model


class Conversions(TorchDispatchMode):
    """Counts how often each parameter is converted to bfloat16."""

    def __init__(self, model):
        super().__init__()
        self.names = {p.data_ptr(): name for name, p in model.named_parameters()}
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.counts[self.names.get(args[0].data_ptr(), "an activation")] += 1
        return func(*args, **kwargs)


def step(plugin):
    """Give losses, gradients and conversions of a step."""
    model = small_model().float()
    batch = random_batch()
    batch = batch._replace(images=batch.images.float())
    conversions = Conversions(model)
    with plugin.forward_context(), conversions:
        encoded = model.encode(batch)
        draws = {name: generator(0, name) for name in LOSSES}
        losses = losses_together(build_losses(LOSSES), model, batch, encoded, draws)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, {n: c for n, c in conversions.counts.items() if n[:3] != "an "}


def test_a_weight_is_converted_once_a_step():
    *_, ours = step(precision_plugin("bf16-mixed", "cpu"))
    *_, lightnings = step(MixedPrecision("bf16-mixed", "cpu"))
    assert max(lightnings.values()) == 2, "a pass of the text alone, and one over images"
    assert ours
    assert set(ours.values()) == {1}
    assert ours.keys() == lightnings.keys()


def test_numbers_are_those_of_autocast():
    losses, gradients, _ = step(precision_plugin("bf16-mixed", "cpu"))
    others, reference, _ = step(MixedPrecision("bf16-mixed", "cpu"))
    assert all(torch.equal(losses[name], others[name]) for name in losses)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        scale = reference[name].abs().max() + 1e-12
        assert (gradient - reference[name]).abs().max() / scale < 0.02, name  # sums in bfloat16


def test_every_arithmetic_has_its_plugin():
    assert precision_plugin("32-true", "cpu").precision == "32-true"
    assert isinstance(precision_plugin("bf16-mixed", "cuda"), CachingMixedPrecision)
    assert precision_plugin("bf16-mixed", "cuda").device == "cuda"
    with pytest.raises(ValueError, match="64-true"):
        precision_plugin("64-true", "cpu")


@pytest.mark.parametrize("requested", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("accelerator", ["cpu", "cuda", "mps"])
def test_what_is_asked_for_is_taken(requested, accelerator):
    assert resolve_precision(requested, accelerator) == requested


@pytest.mark.parametrize(
    ("accelerator", "has_units", "precision"),
    [
        ("cuda", True, "bf16-mixed"),
        ("cuda", False, "16-mixed"),
        ("cpu", True, "bf16-mixed"),
        ("cpu", False, "32-true"),
        ("mps", False, "32-true"),
    ],
)
def test_auto_follows_what_the_device_is_made_for(monkeypatch, accelerator, has_units, precision):
    monkeypatch.setattr(precision_room, "is_made_for_bfloat16", lambda accelerator: has_units)
    assert resolve_precision("auto", accelerator) == precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_a_cpu_needs_units_of_its_own(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert is_made_for_bfloat16("cpu") is expected
    assert is_made_for_bfloat16("mps") is False
