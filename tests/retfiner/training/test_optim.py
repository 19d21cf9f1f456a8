"""What AdamW is told."""

import math

import pytest

from retfiner.training.optim import lr_factor


def test_a_warm_up_rises_to_the_learning_rate_and_its_first_step_counts():
    factors = [lr_factor(step, 100, "constant", 4) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert lr_factor(99, 100, "constant", 4) == 1.0


def test_a_cosine_falls_to_nothing_at_the_end():
    assert lr_factor(10, 110, "cosine", 10) == 1.0
    assert lr_factor(60, 110, "cosine", 10) == pytest.approx(0.5)
    assert lr_factor(35, 110, "cosine", 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(110, 110, "cosine", 10) == pytest.approx(0.0)
