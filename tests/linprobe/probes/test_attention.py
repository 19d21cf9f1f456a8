"""Attention pooling, against formulas written out, and its training."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from linprobe.config import AttentionSettings
from linprobe.probes.attention import (
    CrossAttention,
    GatedAttention,
    fit,
    fit_best,
    probabilities,
)
from linprobe.probes.mil import bag_sets
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator

NUMBERS = AttentionSettings(attention_epochs=15, attention_patience=5, attention_batch=4)
CPU = torch.device("cpu")


@pytest.fixture(params=[CrossAttention, GatedAttention])
def model(request):
    torch.manual_seed(0)
    built = request.param(128, 3)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built


def test_gated_attention_is_the_papers():
    model = GatedAttention(4, 2, hidden=3)
    h = torch.randn(5, 4)
    v, u, w = model.tanh, model.gate, model.weigh
    raw = torch.stack([w(torch.tanh(v(x)) * torch.sigmoid(u(x)))[0] for x in h])
    a = raw.exp() / raw.exp().sum()
    expected = model.classify(sum(a[k] * h[k] for k in range(5)))
    found = model(h[None], torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(found[0], expected)


def test_cross_attention_is_one_query_in_heads_of_64():
    model = CrossAttention(128, 2)
    torch.nn.init.normal_(model.query)
    tokens = torch.randn(5, 128)
    keys, values = model.kv(tokens).chunk(2, dim=1)
    heads = []
    for part in (slice(0, 64), slice(64, 128)):
        weights = (keys[:, part] @ model.query[0, part] / 8).softmax(0)
        heads.append(weights @ values[:, part])
    found = model(tokens[None], torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(found[0], model.classify(torch.cat(heads)))


def test_what_fills_a_batch_up_changes_nothing_and_nor_does_the_order(model):
    x = torch.randn(1, 4, 128)
    there = torch.tensor([[True, True, True, False]])
    scores = model(x, there)
    torch.testing.assert_close(model(x[:, :3], there[:, :3]), scores)
    torch.testing.assert_close(model(x[:, [2, 0, 1]], there[:, :3]), scores)


def needles(n, seed):
    """Bags of three to six vectors, one of which says the class: a mean hides it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    vectors, bags = [], []
    for label in labels:
        size = int(rng.integers(3, 7))
        own = rng.normal(size=(size, 16))
        own[int(rng.integers(size)), :2] = [8, 8 if label else -8]
        bags.append(list(range(len(vectors), len(vectors) + size)))
        vectors += list(own)
    return bag_sets(torch.tensor(np.array(vectors)), bags, labels.tolist())


def test_it_learns_which_instance_tells_the_class():
    build = partial(GatedAttention, 16, 2)
    numbers = dataclasses.replace(NUMBERS, attention_epochs=60, attention_patience=20)
    draws = partial(generator, 0, "attention")
    train, val, test = (needles(60, seed) for seed in range(3))
    fitted = fit_best(build, train, val, [1e-5, 1e-2], numbers, draws, CPU)
    assert fitted.learning_rate == 1e-2
    assert fitted.watch.best_epoch <= len(fitted.watch.curve) <= 60
    found = probabilities(fitted.model, test, 7)
    assert (found.argmax(1) == test.labels.numpy()).mean() > 0.9
    np.testing.assert_allclose(found, probabilities(fitted.model, test, 60), rtol=1e-5)


def test_the_same_seed_gives_the_same_model_and_another_another():
    sets = needles(12, 0), needles(8, 1)

    def trained(seed):
        model = GatedAttention(16, 2)
        return fit(model, *sets, 1e-3, NUMBERS, generator(seed), CPU).model.weigh.weight

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_a_training_that_diverges_is_said():
    vectors = torch.full((12, 16), torch.inf)
    sets = bag_sets(vectors, [[k, k + 1] for k in range(0, 12, 2)], [0, 1] * 3)
    with pytest.raises(InputError, match="diverged"):
        fit(GatedAttention(16, 2), sets, sets, 1e-3, NUMBERS, generator(0), CPU)
