"""A batch computed in chunks equals the whole one, and keeps less for the backward pass."""

from __future__ import annotations

import pytest
import torch

from retfiner.common.seeds import generator
from retfiner.losses import build_losses
from retfiner.training.adaptation import checkpoint_activations
from tests.helpers.small import make_batch, random_batch, small_model

ALL = ["itc", "itm", "mlm", "gm"]


def step(model, batch, names=ALL):
    """Losses and gradients of a training step; what is drawn depends on the loss alone."""
    losses = build_losses(names, model.contrast)
    encoded = model.encode(batch)
    values = {n: loss(model, batch, encoded, generator(0, n)) for n, loss in losses.items()}
    sum(values.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {name: value.item() for name, value in values.items()}, gradients


def unpadded(batch):
    """The same reports, each as long as the longest."""
    ids = batch.input_ids.where(batch.attention_mask.bool(), 7)
    return make_batch(batch.images, ids, torch.ones_like(ids))


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=0, abs=1e-8)
    for name, gradient in expected[1].items():
        if gradient is None:
            assert found[1][name] is None, name
        else:
            torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-8, msg=name)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_losses_and_gradients_are_those_of_the_whole_batch(padded, chunk_size):
    batch = random_batch(7) if padded else unpadded(random_batch(7))
    expected = step(small_model(), batch)
    assert_same(step(small_model(chunk_size=chunk_size), batch), expected)


@pytest.mark.parametrize("name", ALL)
def test_each_loss_alone(name):
    expected = step(small_model(), random_batch(7), [name])
    assert_same(step(small_model(chunk_size=2), random_batch(7), [name]), expected)


@pytest.mark.parametrize("options", [{"contrast": "sigmoid"}, {"duplicate_reports": "similar"}])
def test_other_contrasts(options):
    expected = step(small_model(**options), random_batch(7))
    assert_same(step(small_model(chunk_size=3, **options), random_batch(7)), expected)


def test_together_with_gradient_checkpointing():
    model = small_model(chunk_size=3)
    checkpoint_activations(model)
    assert_same(step(model, random_batch(7)), step(small_model(), random_batch(7)))


def plainly(function, *given, use_reentrant):
    assert isinstance(given[0], torch.Tensor), "by which the device is known whose dropout to keep"
    return function(*given)


def test_the_backward_pass_drops_the_same_units(monkeypatch):
    """Chunks whose activations are kept are the reference: the same draws, nothing anew."""
    found = []
    for keeps in (False, True):
        if keeps:
            monkeypatch.setattr("retfiner.model.checkpoint", plainly)
        torch.manual_seed(0)
        found.append(step(small_model(chunk_size=2).train(), random_batch(7)))
    assert_same(*found)
    torch.manual_seed(1)
    other = step(small_model(chunk_size=2).train(), random_batch(7))
    assert other[0] != found[0][0], "dropout is on"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_drops_the_same_units_as_well(monkeypatch):
    found = []
    for keeps in (False, True):
        if keeps:
            monkeypatch.setattr("retfiner.model.checkpoint", plainly)
        torch.manual_seed(0)
        batch = random_batch(7)
        moved = [x.cuda() if isinstance(x, torch.Tensor) else x for x in batch]
        model = small_model(chunk_size=2).train().cuda()
        found.append(step(model, type(batch)(*moved)))
    assert_same(*found)


def test_chunks_are_almost_equal_and_at_most_as_large_as_asked():
    model = small_model(chunk_size=16)
    for pairs in range(1, 70):
        sizes = [c.stop - c.start for c in model.chunks_of(pairs)]
        assert sum(sizes) == pairs and max(sizes) <= 16 and max(sizes) - min(sizes) <= 1
    assert [c.stop - c.start for c in small_model().chunks_of(70)] == [70]


@pytest.mark.parametrize("name", ALL)
def test_no_pass_sees_more_than_a_chunk_with_gradients_or_without(name):
    model, batch = small_model(chunk_size=2), random_batch(7)
    most = {"vision": 0, "fused": 0, "text": 0}
    layer = model.multimodal_encoder.bert.encoder.layer[0]
    parts = {
        "vision": (model.vision_encoder.patch_embed, len),
        "fused": (layer.crossattention.self.key, len),
        "text": (layer.attention.self.query, lambda x: x.flatten(0, -2).shape[0] / 12),
    }
    for part, (module, count) in parts.items():
        module.register_forward_hook(
            lambda m, given, out, part=part, count=count: most.__setitem__(
                part, max(most[part], count(given[0]))
            )
        )
    readings = 3 if name == "itm" else 1  # of a chunk's texts, all in one pass
    step(model, batch, [name])
    assert most["vision"] <= 2 and most["fused"] <= 2 and most["text"] <= 2 * readings
    with torch.no_grad():
        encoded = model.encode(batch)
        build_losses([name])[name](model, batch, encoded, generator(0))
    assert most["vision"] <= 2 and most["fused"] <= 2 and most["text"] <= 2 * readings


def kept_bytes(model, batch):
    """Bytes that autograd keeps for the backward pass, but for the weights and the batch."""
    own = {t.data_ptr() for t in (*model.parameters(), batch.images)}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = build_losses(ALL)
        encoded = model.encode(batch)
        values = [loss(model, batch, encoded, generator(0, n)) for n, loss in losses.items()]
        total = sum(values)
    assert total.requires_grad
    return sum(kept.values())


def test_what_a_batch_keeps_hardly_grows_with_it():
    whole = [kept_bytes(small_model(), random_batch(n)) for n in (8, 32)]
    chunked = [kept_bytes(small_model(chunk_size=4), random_batch(n)) for n in (8, 32)]
    assert chunked[1] < 0.1 * whole[1]
    assert chunked[1] < whole[0]
