"""Whatever way ``train_step.py`` measures computes the same losses as ours."""

import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from retfiner.common.seeds import generator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from levers import Lever, without
from measuring import Clock
from naive_step import NaiveStep
from train_step import BenchmarkConfig, build_model, make_batch, our_losses

NAMES = ["itc", "itm", "mlm", "gm"]


def small_case():
    """A small model without dropout and a batch, in float64."""
    config = BenchmarkConfig(
        backbone="vit_tiny", image_size=32, text_layers=2, text_width=64, batch_size=5
    )
    torch.manual_seed(0)
    batch = make_batch(config, 0)
    return build_model(config).eval().double(), batch._replace(images=batch.images.double())


def draws():
    return {name: generator(0, name) for name in NAMES}


def test_the_published_way_gives_our_losses_and_gradients():
    model, batch = small_case()

    def gradients(losses):
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    clock = Clock(torch.device("cpu"))
    ours = our_losses(model, batch, NAMES, draws(), clock)
    expected = gradients(ours)
    published = NaiveStep(model).losses(batch, NAMES, draws())
    found = gradients(published)
    for name in NAMES:
        assert published[name].item() == pytest.approx(ours[name].item(), rel=1e-9)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9)
    assert clock.seconds()["vision"] > 0


@pytest.mark.parametrize("lever", get_args(Lever))
def test_without_a_lever_the_losses_are_the_same(lever):
    model, batch = small_case()
    clock = Clock(torch.device("cpu"))
    expected = our_losses(model, batch, NAMES, draws(), clock)
    with without(lever, model):
        found = our_losses(model, batch, NAMES, draws(), clock)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name
