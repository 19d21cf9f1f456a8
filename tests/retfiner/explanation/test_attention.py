"""The explanation's own pass is the model's pass, with its probabilities in the open."""

from __future__ import annotations

import pytest
import torch

from retfiner.explanation.maps import fuse_explicitly
from tests.helpers.small import random_batch, small_model


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
@torch.no_grad()
def test_states_are_those_of_the_models_forward(dtype, tolerance):
    model, batch = small_model().to(dtype), random_batch()
    tokens = model.encode_images(batch.images.to(dtype))
    text = model.multimodal_encoder
    expected = text.fuse(batch.input_ids, batch.attention_mask, text.project_image(tokens))
    found, _ = fuse_explicitly(text, batch.input_ids, batch.attention_mask, tokens)
    words = batch.attention_mask.bool()
    assert (~words).any(), "padding is part of the question"
    assert found.dtype == dtype
    torch.testing.assert_close(found[words], expected[words], atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_probabilities_are_over_the_image_tokens():
    model, batch = small_model(), random_batch(3, 9)
    tokens = model.encode_images(batch.images)
    text = model.multimodal_encoder
    _, found = fuse_explicitly(text, batch.input_ids, batch.attention_mask, tokens)
    assert [tuple(p.shape) for p in found] == [(3, 4, 9, 17)] * 2
    for p in found:
        torch.testing.assert_close(p.sum(-1), torch.ones(3, 4, 9, dtype=p.dtype))
        assert p.std() > 0.01, "not uniform: the weights are not trivial"
