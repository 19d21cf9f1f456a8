"""Maps of words: their gradients against finite differences of the model's own forward."""

from __future__ import annotations

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.explanation.maps import choose_layer, fuse_explicitly, token_maps
from retfiner.text.reading import Reading
from tests.helpers.small import random_batch, small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def batch():
    return random_batch(3, 8)


@torch.no_grad()
def score_with(model, batch, layer, row, head, token, patch, more):
    """Match score when a head of a token takes ``more`` of an image token, by the fused forward."""
    tokens = model.encode_images(batch.images)
    image = model.multimodal_encoder.project_image(tokens)
    width = image[layer].values.shape[-1]

    def take_more(_, inputs):
        context = inputs[0].clone()
        context[row, token, head * width : (head + 1) * width] += (
            more * image[layer].values[row, head, patch]
        )
        return (context,)

    dense = model.multimodal_encoder.bert.encoder.layer[layer].crossattention.output.dense
    hook = dense.register_forward_pre_hook(take_more)
    states = model.multimodal_encoder.fuse(batch.input_ids, batch.attention_mask, image)
    hook.remove()
    logits = model.itm_head(states[:, 0])
    return (logits[row, 1] - logits[row, 0]).item()


def test_weighted_maps_agree_with_finite_differences(model, batch):
    maps = token_maps(model, batch.images, batch.input_ids, batch.attention_mask)
    with torch.no_grad():
        tokens = model.encode_images(batch.images)
        text = model.multimodal_encoder
        _, taken = fuse_explicitly(text, batch.input_ids, batch.attention_mask, tokens)
    step, layer = 1e-4, 0
    checked_positive = 0
    for row, token, patch in [(0, 0, 0), (0, 3, 5), (1, 2, 15), (2, 1, 9), (1, 1, 4)]:
        expected = 0.0
        for head in range(4):
            where = (model, batch, layer, row, head, token, patch + 1)
            slope = (score_with(*where, step) - score_with(*where, -step)) / (2 * step)
            expected += max(slope, 0) * taken[layer][row, head, token, patch + 1].item() / 4
        checked_positive += expected > 1e-9
        found = maps.weighted[layer, row, token, patch // 4, patch % 4].item()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert checked_positive >= 3, "the question is not empty"


def test_attention_maps_are_probabilities_without_cls(model, batch):
    maps = token_maps(model, batch.images, batch.input_ids, batch.attention_mask)
    with torch.no_grad():
        tokens = model.encode_images(batch.images)
        text = model.multimodal_encoder
        _, taken = fuse_explicitly(text, batch.input_ids, batch.attention_mask, tokens)
    assert maps.attention.shape == (2, 3, 8, 4, 4)
    torch.testing.assert_close(maps.attention[1, 2, 3].flatten(), taken[1][2, :, 3, 1:].mean(0))


def test_match_is_the_heads(model, batch):
    with torch.no_grad():
        encoded = model.encode(batch)
        states = model.fuse(batch, encoded, [Reading(batch.input_ids, batch.attention_mask)])[0]
        expected = model.itm_head(states[:, 0]).softmax(1)[:, 1]
    found = token_maps(model, batch.images, batch.input_ids, batch.attention_mask).match
    torch.testing.assert_close(found, expected)


def test_words_reach_no_score_from_the_last_layer(model, batch):
    weighted = token_maps(model, batch.images, batch.input_ids, batch.attention_mask).weighted
    assert not weighted[-1, :, 1:].any()
    assert weighted[-1, :, 0].any(), "[CLS] does"


def test_a_report_is_alone_in_a_batch(model, batch):
    every = token_maps(model, batch.images, batch.input_ids, batch.attention_mask)
    one = token_maps(model, batch.images[1:2], batch.input_ids[1:2], batch.attention_mask[1:2])
    torch.testing.assert_close(every.weighted[:, 1:2], one.weighted)


def test_no_gradient_is_left_behind(model, batch):
    with torch.no_grad():  # as the API calls it
        token_maps(model, batch.images, batch.input_ids, batch.attention_mask)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("layers", "wanted", "chosen"), [(2, None, 0), (12, None, 5), (6, None, 2), (6, 4, 4)]
)
def test_layer(layers, wanted, chosen):
    assert choose_layer(layers, wanted) == chosen


@pytest.mark.parametrize(("layers", "wanted"), [(6, 5), (6, 6), (1, None), (1, 0), (6, -1)])
def test_no_such_layer(layers, wanted):
    with pytest.raises(InputError, match="cannot be followed"):
        choose_layer(layers, wanted)


def test_a_model_without_match_head_is_refused(batch):
    model = small_model(itm_head=None)
    with pytest.raises(InputError, match="refined with itm"):
        token_maps(model, batch.images, batch.input_ids, batch.attention_mask)
