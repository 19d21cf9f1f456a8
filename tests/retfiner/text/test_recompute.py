"""What the backward pass makes again at once is not kept for it: the same numbers, less memory."""

import copy

import pytest
import torch
from timm.layers import SwiGLU, SwiGLUPacked
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retfiner.common.seeds import generator
from retfiner.losses import LOSSES, ITMHead, losses_together
from retfiner.model import RetFiner
from retfiner.training.adaptation import add_lora, checkpoint_activations
from tests.helpers.small import random_batch, small_backbone, small_bert, small_model


class Alive(TorchDispatchMode):
    """Tells how many bytes of what was computed within are still there, whoever holds them."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {storage._cdata for storage in storages((args, kwargs))}
        results = operation(*args, **kwargs)
        for storage in storages(results):
            if storage._cdata not in given:  # a view of what there was, or a change in place
                self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return results

    def bytes(self, but):
        left_out = but.untyped_storage()._cdata
        return sum(
            size
            for place, (ref, size) in self.made.items()
            if not ref.expired() and place != left_out
        )


def storages(values):
    return [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


def step(model, precision=torch.float32):
    """Losses and gradients of a step with dropout, and the bytes that its forward pass keeps."""
    model.float().train().zero_grad()
    torch.manual_seed(3)
    batch = random_batch(6)
    batch = batch._replace(images=batch.images.float())
    losses = {name: LOSSES[name]() for name in LOSSES}
    generators = {name: generator(0, name) for name in losses}
    autocast = torch.autocast("cpu", precision, enabled=precision != torch.float32)
    with autocast, Alive() as alive:
        values = losses_together(losses, model, batch, model.encode(batch), generators)
        total = sum(values.values())
    kept = alive.bytes(but=total)
    total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return values, gradients, kept


def kept_by(model, function):
    """Bytes that a call keeps, with the switch on and off; the result itself not counted."""
    found = []
    for is_on in (True, False):
        torch.manual_seed(3)
        model.recompute.is_on = is_on
        with Alive() as alive:
            result = function()
        found.append(alive.bytes(but=result))
    model.recompute.is_on = True
    return found


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
    # Of what bfloat16 keeps, copies of the weights are a large part in a small model.
    assert kept < (0.75 if precision == torch.float32 else 0.85) * all_kept


@pytest.mark.parametrize("mlp", [SwiGLU, SwiGLUPacked])
def test_blocks_of_other_kinds_give_the_same_numbers(mlp):
    backbone = small_backbone(48)
    for block in backbone.encoder.blocks:
        block.mlp = mlp(48, 64)
    model = RetFiner(
        backbone, small_bert(), contrastive_dim=16, itm_head=ITMHead(32), mask_token_id=4
    )
    values, gradients, _ = step(model)
    with model.recompute.off():
        expected, expected_gradients, _ = step(model)
    assert values == expected
    assert all(torch.equal(gradients[name], expected_gradients[name]) for name in gradients)


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


def test_of_a_vit_neither_gelu_nor_norms_are_kept():
    model = small_model().float().train()
    images = random_batch(6).images.float()
    less, all_of_it = kept_by(model, lambda: model.encode_images(images))
    tokens = model.encode_images(images).detach()
    places, width, depth = 6 * tokens.shape[1], model.backbone.width, len(model.backbone.blocks)
    assert all_of_it - less == 4 * places * (4 + 2) * width * depth


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_copies_of_keys_and_values_and_what_dropout_left_are_not_kept(dropout):
    model = small_model().float()
    text, batch = model.multimodal_encoder, random_batch(6)
    for module in text.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    text.train()
    tokens = torch.randn(6, 5, text.config.hidden_size)
    image = text.project_image(tokens)
    index = torch.tensor([3, 3, 0, 5, 1, 3])
    less, all_of_it = kept_by(
        model, lambda: text.fuse(batch.input_ids, batch.attention_mask, image, index)
    )
    layers, heads, length = len(text.layers), text.config.num_attention_heads, 12
    copies = 2 * 4 * tokens.numel()
    gelu = 4 * 6 * length * text.config.intermediate_size
    # The output of dropout, four bytes wide, and its factors, of which one byte is kept.
    weights = (4 + 4 - 1) * 6 * heads * length * (length + 5) if dropout else 0
    assert all_of_it - less == layers * (copies + gelu + weights)
