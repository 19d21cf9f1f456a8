"""The head against a plain loop in torch, and heads trained at once against each alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from linprobe.config import ProbeConfig
from linprobe.probes.head import TrainingSet, train_heads
from linprobe.probes.linear import head_settings
from linprobe.schedule import learning_rate_at
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator

PROTOCOL = head_settings(ProbeConfig(init_weights=Path("base.pth")), "UrFound")
SHORT = dataclasses.replace(PROTOCOL, epochs=60, patience=10, patience_start=5)
N, F, C = 40, 12, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(C, F))

    def draw(n):
        labels = np.arange(n) % C
        features = 0.6 * centres[labels] + rng.normal(size=(n, F))
        return torch.from_numpy(features), torch.from_numpy(labels)

    return draw(N), draw(30)


def make_set(features, labels, seed):
    rows = torch.arange(len(labels))
    return TrainingSet(labels, lambda epoch, gen: (features, rows), generator(seed))


def train(data, seeds, settings=SHORT, batch=8, n_classes=C):
    (features, labels), (val_features, val_labels) = data
    sets = [make_set(features, labels, seed) for seed in seeds]
    return train_heads(sets, val_features, val_labels, n_classes, batch, settings)


def test_the_head_is_what_torch_trains(data):
    settings = dataclasses.replace(SHORT, epochs=12, patience=99, weight_decay=0.05, init_std=0.3)
    (features, labels), (val_features, val_labels) = data
    [ours] = train(data, [3], settings)

    gen = generator(3)
    head = nn.Linear(F, C).double()
    nn.init.trunc_normal_(head.weight, std=settings.init_std, generator=gen)
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.AdamW(head.parameters(), weight_decay=0.05)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    losses, val_losses = [], []
    for epoch in range(12):
        order, total = torch.randperm(N, generator=gen), 0.0
        for step in range(5):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(
                    epoch + step / 5, peak=1e-3, lowest=1e-8, warmup=10, epochs=12
                )
            batch = order[8 * step : 8 * step + 8]
            optimiser.zero_grad()
            value = loss(head(features[batch]), labels[batch])
            value.backward()
            optimiser.step()
            total += value.item() / 5
        losses.append(total)
        val_losses.append(nn.functional.cross_entropy(head(val_features), val_labels).item())
    np.testing.assert_allclose([row["train_loss"] for row in ours.watch.curve], losses, rtol=1e-6)
    np.testing.assert_allclose([row["val_loss"] for row in ours.watch.curve], val_losses, rtol=1e-6)
    assert len(ours.watch.curve) == 12


def test_the_best_epoch_is_what_is_kept(data):
    (_, _), (val_features, val_labels) = data
    [head] = train(data, [0])
    found = head.watch.context
    row = head.watch.curve[found["best_epoch"] - 1]
    probabilities = head.probabilities(val_features)
    recalls = [(probabilities.argmax(1) == k)[val_labels == k].double().mean() for k in range(C)]
    assert np.mean(recalls) == pytest.approx(row["val_balanced_accuracy"])
    assert (
        row["val_balanced_accuracy"]
        >= max(r["val_balanced_accuracy"] for r in head.watch.curve) - 1e-3
    )
    assert found["best_epoch"] < found["epochs_trained"] == len(head.watch.curve)


def test_heads_trained_at_once_are_the_heads_trained_alone(data):
    seeds = [5, 0, 1, 2, 7]
    together = train(data, seeds)
    assert len({len(head.watch.curve) for head in together}) > 1  # they stop one by one
    for seed, head in zip(seeds, together, strict=True):
        [alone] = train(data, [seed])
        torch.testing.assert_close(head.weight, alone.weight, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(head.bias, alone.bias, rtol=1e-6, atol=1e-9)
        assert head.watch.context == alone.watch.context


def test_same_seed_same_head_other_seed_another(data):
    first, again, other = (train(data, [seed])[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_plays_no_part(data):
    torch.manual_seed(0)
    first = train(data, [1])[0].weight
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(first, train(data, [1])[0].weight)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_weights_are_tiny_and_of_the_asked_spread(data):
    wide = torch.randn(20, 4000, dtype=torch.float64, generator=generator(0))
    labels = torch.arange(20) % C
    frozen = dataclasses.replace(
        PROTOCOL, epochs=20, patience=1, patience_start=0, learning_rate=1e-30, min_learning_rate=0
    )
    [head] = train_heads([make_set(wide, labels, 0)], wide, labels, C, 4, frozen)
    assert float(head.weight.std()) == pytest.approx(2e-5, rel=0.05)
    assert head.bias.abs().max() < 1e-20


def test_a_class_without_a_training_image_keeps_its_place(data):
    (features, labels), val = data
    [head] = train(((features, labels * 2), val), [0], n_classes=5)
    assert head.weight.shape == (5, F)
    assert set(head.probabilities(features).argmax(1).tolist()) <= {0, 2, 4}


def test_each_epoch_draws_its_views_from_the_heads_own_generator(data):
    (features, labels), (val_features, val_labels) = data
    seen = []

    def table(epoch, gen):
        view = torch.randint(2, (N,), generator=gen)
        seen.append(view)
        return torch.cat([features, -features]), view * N + torch.arange(N)

    settings = dataclasses.replace(SHORT, epochs=11)
    train_heads(
        [TrainingSet(labels, table, generator(0))], val_features, val_labels, C, 8, settings
    )
    assert len(seen) == 11
    assert len({tuple(view.tolist()) for view in seen}) == 11


def test_divergence_is_an_error(data):
    (features, labels), val = data
    broken = features.clone()
    broken[0, 0] = np.inf
    with pytest.raises(InputError, match="diverged"):
        train(((broken, labels), val), [0])


def test_heads_trained_at_once_need_equally_many_images(data):
    (features, labels), (val_features, val_labels) = data
    sets = [make_set(features, labels, 0), make_set(features[:9], labels[:9], 1)]
    with pytest.raises(InputError, match="equally many"):
        train_heads(sets, val_features, val_labels, C, 8, SHORT)
