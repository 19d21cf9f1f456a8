"""Each loss and its gradients against the published method's numbers, in float64.

The figures are those of a fixed model and batch; only the model's weights are rebuilt here, from
each parameter's name.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from retfiner.losses.itc import ImageTextContrastive
from retfiner.losses.itm import ImageTextMatching, Negatives
from retfiner.losses.masked import masked_prediction
from retfiner.text.masking import MaskedTokens
from tests.helpers.small import make_batch, parity_name, small_model

ASSET = Path(__file__).parents[2] / "assets" / "refinement_losses.json"
EXPECTED = json.loads(ASSET.read_text())
LOSSES = ("mlm", "gm", "itc", "itm")


@pytest.fixture
def model():
    return small_model(duplicate_reports="ignore")


@pytest.fixture
def batch():
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3, 32, 32)))
    return make_batch(
        images, torch.tensor(EXPECTED["input_ids"]), torch.tensor(EXPECTED["attention_mask"])
    )


def compute(name, model, batch):
    encoded = model.encode(batch)
    if name == "itc":
        return ImageTextContrastive().from_similarity(encoded.similarity, encoded.relation.affinity)
    if name == "itm":
        negatives = Negatives(
            torch.tensor(EXPECTED["itm"]["negative_image_for_text"]),
            torch.tensor(EXPECTED["itm"]["negative_text_for_image"]),
            torch.ones(6, dtype=torch.bool),
            torch.ones(6, dtype=torch.bool),
        )
        plan = ImageTextMatching.from_negatives(model, batch, negatives)
        return plan.carry_out(model, batch, encoded)
    labels = torch.tensor(EXPECTED[name]["labels"]).flatten()
    positions = (labels != -100).nonzero().squeeze(1)
    masked = MaskedTokens(torch.tensor(EXPECTED[name]["input_ids"]), positions, labels[positions])
    plan = masked_prediction(model, batch, masked, causal=name == "gm")
    return plan.carry_out(model, batch, encoded)


def test_parameters_are_the_published_ones(model):
    ours = {parity_name(n): list(p.shape) for n, p in model.named_parameters()}
    theirs = EXPECTED["parameter_names"]
    unused = {"vision_encoder.head.weight", "vision_encoder.head.bias"}  # no loss ever reads it
    assert ours == {n: shape for n, shape in theirs.items() if n not in unused}


def test_image_tokens(model, batch):
    tokens = model.encode_images(batch.images)
    expected = EXPECTED["image_features"]
    assert list(tokens.shape) == expected["shape"]
    np.testing.assert_allclose(
        tokens[0, 0, :8].detach(), expected["first_row_cls"], rtol=0, atol=1e-8
    )
    assert tokens.sum().item() == pytest.approx(expected["sum"], rel=0, abs=1e-8)
    assert tokens.abs().sum().item() == pytest.approx(expected["abs_sum"], rel=0, abs=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, model, batch):
    assert compute(name, model, batch).item() == pytest.approx(
        EXPECTED["losses"][name], rel=0, abs=1e-8
    )


def test_total(model, batch):
    total = sum(compute(name, model, batch) for name in LOSSES)
    assert total.item() == pytest.approx(EXPECTED["total"], rel=0, abs=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name, model, batch):
    compute(name, model, batch).backward()
    gradients = {parity_name(n): p.grad for n, p in model.named_parameters()}
    for parameter, norm in EXPECTED["grad_norms"][name].items():
        gradient = gradients[parameter]
        if norm is None:
            assert gradient is None or not gradient.any(), f"{parameter} should have no gradient"
        else:
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-6), parameter
