"""Exams: several images of one report, read as one sequence and compared as one vector."""

from __future__ import annotations

import pytest
import torch

from retfiner.common.seeds import generator
from retfiner.losses import build_losses
from retfiner.model import Groups
from retfiner.vision.exams import MARKS, marks_of
from tests.helpers.processes import share_of, together
from tests.helpers.small import random_batch, small_model

ALL = ["itc", "itm", "mlm", "gm"]


def step(model, batch, names=ALL):
    losses = build_losses(names, model.contrast)
    encoded = model.encode(batch)
    values = {n: loss(model, batch, encoded, generator(0, n)) for n, loss in losses.items()}
    sum(values.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.item() for name, value in values.items()}, gradients


def exams(sizes=(3, 1, 2, 4), seed=0):
    """A batch of exams of such sizes, their images at places along a volume."""
    batch = random_batch(len(sizes), seed=seed)
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(sum(sizes), 3, 32, 32, generator=draws, dtype=torch.float64)
    places = [n / max(1, size - 1) for size in sizes for n in range(size)]
    marks = torch.tensor([marks_of(p, "OD", "bscan") for p in places], dtype=torch.float64)
    return batch._replace(images=images, groups=Groups(tuple(sizes), marks))


def grouped_model(**options):
    """A small model whose marks and queries are no longer the zeros they begin as."""
    return small_model(**({"pooling": "attention"} | options))


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=0, abs=1e-8)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-8, msg=name)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"contrast": "sigmoid"}])
def test_exams_of_one_image_have_the_numbers_of_single_images(pooling, options):
    batch = random_batch(6)
    groups = Groups((1,) * 6, torch.zeros(6, MARKS, dtype=torch.float64))
    expected = step(small_model(**options), batch)
    found = step(grouped_model(pooling=pooling, **options), batch._replace(groups=groups))
    assert_same(found, expected)


def test_marks_begin_as_nothing():
    from retfiner.model import RetFiner
    from tests.helpers.small import small_backbone, small_bert

    model = RetFiner(small_backbone(), small_bert(), 4, 16, pooling="attention").double().eval()
    batch = exams((2, 2))
    tokens = model.encode_images(batch.images)
    laid, mask = model.group(tokens, batch.groups, (2, 2))
    assert mask is None and torch.equal(laid, tokens.reshape(2, -1, tokens.shape[-1]))
    mean = model.contra_head_v.linear(tokens[:, 0]).unflatten(0, (2, 2)).mean(1)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    torch.testing.assert_close(model.embed_images(laid, 2), expected)


def one_by_one(model, batch):
    """Each exam in a batch of its own, where nothing is padded: embedding and fused states."""
    found, first = [], 0
    for row, size in enumerate(batch.groups.sizes):
        own = slice(first, first + size)
        first += size
        tokens = model.encode_images(batch.images[own]) + model.image_marks(
            batch.groups.marks[own]
        ).unsqueeze(1)
        sequence = tokens.flatten(0, 1)[None]
        text = batch.input_ids[row : row + 1], batch.attention_mask[row : row + 1]
        image = model.multimodal_encoder.project_image(sequence)
        states = model.multimodal_encoder.fuse(*text, image)
        found.append((model.embed_images(sequence, size)[0], states[0, 0]))
    return found


def test_smaller_exams_are_as_if_nothing_were_padded():
    model, batch = grouped_model(), exams()
    encoded = model.encode(batch)
    image = encoded.image
    states = model.multimodal_encoder.fuse(batch.input_ids, batch.attention_mask, image)
    for row, (vector, state) in enumerate(one_by_one(model, batch)):
        torch.testing.assert_close(encoded.image_embedding[row], vector, rtol=0, atol=1e-10)
        torch.testing.assert_close(states[row, 0], state, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
def test_chunks_have_the_numbers_of_the_whole_batch(chunk_size):
    assert_same(step(grouped_model(chunk_size=chunk_size), exams()), step(grouped_model(), exams()))


def test_in_training_mode_with_dropout_padded_keys_are_not_seen():
    """The attention that a CPU takes with dropout is another one."""
    model, batch = grouped_model(), exams()
    model.multimodal_encoder.train()
    for module in model.multimodal_encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 1e-12
    assert_same(step(model, batch), step(grouped_model(), batch))


def test_every_image_of_an_exam_counts_and_its_place_too():
    model, batch = grouped_model(), exams((3, 2))
    before = model.encode(batch).image_embedding
    for row in range(5):
        changed = batch.images.clone()
        changed[row] += 1
        after = model.encode(batch._replace(images=changed)).image_embedding
        moved = (before - after).abs().amax(1) > 1e-6
        assert moved.tolist() == [row < 3, row >= 3]
    turned = batch._replace(groups=batch.groups._replace(marks=batch.groups.marks.flip(0)))
    assert not torch.allclose(model.encode(turned).image_embedding, before)


def step_together(rank, sizes, batch):
    torch.manual_seed(0)
    own = share_of(batch, sizes, rank)
    return step(grouped_model(), own)


@pytest.mark.parametrize("sizes", [(3, 1, 2, 4, 1), (1, 1, 1, 2, 2)])
def test_two_processes_have_the_numbers_of_one(tmp_path, sizes):
    expected = step(grouped_model(), exams(sizes))
    parts = together(2, tmp_path, step_together, [3, 2], exams(sizes))
    for name, value in expected[0].items():
        mean = sum(part[0][name] for part in parts) / 2
        assert mean == pytest.approx(value, rel=0, abs=1e-8), name
    for name, gradient in expected[1].items():
        mean = sum(part[1][name] for part in parts) / 2
        torch.testing.assert_close(mean, gradient, rtol=0, atol=1e-8, msg=name)


def test_places_tell_neighbours_from_ends():
    places = [torch.tensor(marks_of(p)) for p in (0.0, 0.02, 1.0)]
    assert (places[0] - places[1]).norm() < (places[0] - places[2]).norm()
    assert marks_of() == [0.0] * MARKS and sum(marks_of(None, "OS", "fundus")) == 2


def test_images_of_an_exam_are_augmented_alike():
    from retfiner.vision.preprocessing import augment_batch

    image = torch.rand(1, 3, 32, 32).expand(5, -1, -1, -1)
    edges = torch.zeros(3), torch.ones(3)
    found = augment_batch(image, *edges, generator(0), total=2, sizes=(3, 2))
    assert torch.equal(found[0], found[2]) and torch.equal(found[3], found[4])
    assert not torch.equal(found[0], found[3])
