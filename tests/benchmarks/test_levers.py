"""A step without one of the levers computes the same losses."""

import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from retfiner.common.seeds import generator
from retfiner.losses import LOSSES

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from levers import Lever, without
from measuring import Clock
from train_step import BenchmarkConfig, build_model, make_batch, our_losses


@pytest.mark.parametrize("lever", get_args(Lever))
def test_without_a_lever_the_losses_are_the_same(lever):
    config = BenchmarkConfig(
        backbone="vit_tiny", image_size=32, text_layers=2, text_width=64, batch_size=5
    )
    torch.manual_seed(0)
    model = build_model(config).eval().double()
    batch = make_batch(config, 0)
    batch = batch._replace(images=batch.images.double())

    def losses():
        draws = {name: generator(0, name) for name in LOSSES}
        return our_losses(model, batch, list(LOSSES), draws, Clock(torch.device("cpu")))

    expected = losses()
    with without(lever, model):
        found = losses()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name
