"""States of random number generators."""

import random

import numpy as np
import torch

from retfiner.training.rng_states import collect_rng_states, restore_rng_states

CPU = torch.device("cpu")


def draw():
    return torch.rand(3).tolist(), np.random.standard_normal(3).tolist(), random.random()


def test_draws_are_repeated_from_a_safe_file(tmp_path):
    draw(), np.random.standard_normal()  # an odd number: numpy keeps the second of each two
    torch.save(collect_rng_states(CPU), tmp_path / "states.pt")
    expected = draw()
    draw()
    restore_rng_states(torch.load(tmp_path / "states.pt", weights_only=True), CPU)
    assert draw() == expected
    assert draw() != expected
