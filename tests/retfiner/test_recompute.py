"""An MLP's GELU is computed again in the backward pass: the same numbers for less memory."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from retfiner.common.seeds import generator
from retfiner.losses import LOSSES, losses_together
from retfiner.training.adaptation import add_lora, checkpoint_activations
from tests.helpers.small import random_batch, small_model


def step(model, precision=torch.float32):
    """Losses and gradients of a step with dropout, and the bytes that its forward pass keeps."""
    model.float().train().zero_grad()
    torch.manual_seed(3)
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor, storage.nbytes()  # held, so that no address comes twice
        return tensor

    batch = random_batch(6)
    batch = batch._replace(images=batch.images.float())
    losses = {name: LOSSES[name]() for name in LOSSES}
    generators = {name: generator(0, name) for name in losses}
    autocast = torch.autocast("cpu", precision, enabled=precision != torch.float32)
    with autocast, saved_tensors_hooks(keep, lambda tensor: tensor):
        values = losses_together(losses, model, batch, model.encode(batch), generators)
    sum(values.values()).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return values, gradients, sum(size for _, size in kept.values())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backbone", ["RETFound", "VisionFM"])
def test_numbers_are_the_same_to_the_bit_and_less_is_kept(backbone, precision):
    model = small_model(backbone=backbone)
    values, gradients, kept = step(model, precision)
    with model.recompute.off():
        expected, expected_gradients, all_kept = step(model, precision)
    assert values == expected
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected_gradients[name]), name
    assert kept < 0.93 * all_kept  # weights, which are kept in any case, are much of a small model


@pytest.mark.parametrize("way", ["checkpointing", "chunks", "lora"])
def test_it_stays_out_of_what_keeps_less_or_reads_more(way):
    model = small_model(chunk_size=2 if way == "chunks" else None)
    if way == "checkpointing":
        checkpoint_activations(model)
    elif way == "lora":
        add_lora(model.vision_encoder, 2, 1.0)
    values, gradients, kept = step(model)
    with model.recompute.off():
        expected, expected_gradients, all_kept = step(model)
    assert values == expected
    assert all(torch.equal(gradients[name], expected_gradients[name]) for name in gradients)
    assert kept == all_kept if way != "lora" else kept < all_kept


def test_a_copy_watches_its_own_layers():
    model = small_model()
    twin = copy.deepcopy(model)
    with model.recompute.off():
        expected, *_ = step(model)
        values, _, kept = step(twin)
    assert twin.recompute.is_on
    assert values == expected
    with twin.recompute.off():
        assert kept < step(twin)[2]
