"""The sigmoid contrast against a loop written from its definition, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from retfiner.losses.sigmoid import SigmoidContrast
from tests.helpers.small import random_batch, small_model


def naive(cosines, temperature, bias, target):
    """-1/n sum_i sum_j log sigmoid(z (t x_i y_j + b)), z = 1 for right pairs and -1 for others.

    A pair that is right by half is half of each.
    """
    size, total = len(cosines), 0.0
    for i in range(size):
        for j in range(size):
            logit = cosines[i][j] / temperature + bias
            for z, share in ((1, target[i][j]), (-1, 1 - target[i][j])):
                total += share * math.log(1 + math.exp(-z * logit)) / size
    return total


def contrast(model, batch):
    encoded = model.encode(batch)
    return SigmoidContrast()(model, batch, encoded, torch.Generator()), encoded


@pytest.mark.parametrize("how", ["shared", "ignore", "similar"])
def test_equals_the_definition(how):
    batch = random_batch()._replace(
        report_ids=torch.tensor([0, 0, 1, 2, 0, 3]), image_ids=torch.tensor([0, 1, 2, 2, 3, 4])
    )
    model = small_model(contrast="sigmoid", duplicate_reports=how)
    found, encoded = contrast(model, batch)
    cosines = (encoded.image_embedding @ encoded.text_embedding.T).tolist()
    target = model.relation(batch).affinity.double().tolist()
    expected = naive(cosines, model.temperature.item(), -10.0, target)
    assert found.item() == pytest.approx(expected, rel=0, abs=1e-10)


def test_it_begins_at_the_bias_of_right_pairs():
    """With cosines of 0, each image pays 10 for its own report and next to nothing for others."""
    batch, model = random_batch(), small_model(contrast="sigmoid")
    encoded = model.encode(batch)
    flat = encoded._replace(similarity=torch.zeros_like(encoded.similarity))
    loss = SigmoidContrast()(model, batch, flat, torch.Generator())
    small = math.log1p(math.exp(-10))
    assert loss.item() == pytest.approx(10 + 6 * small, abs=1e-12)


def test_temperature_and_bias_learn():
    model = small_model(contrast="sigmoid")
    contrast(model, random_batch())[0].backward()
    assert model.contra_temp.grad.abs() > 0 and model.contra_bias.grad.abs() > 0
