"""Heads of several labels and of values, against torch's own loss and gradient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from linprobe.config import ProbeConfig
from linprobe.probes.head import TrainingSet, train_heads
from linprobe.probes.kinds import losses, outputs, targets
from linprobe.probes.knn import knn_probabilities
from linprobe.probes.linear import head_settings
from retfiner.common.metrics import compute_metric
from retfiner.common.seeds import generator

SETTINGS = head_settings(ProbeConfig(init_weights=Path("base.pth")), "UrFound")
LABELS = {
    "classes": torch.tensor([0, 2, 1, 2]),
    "multilabel": torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]]),
    "regression": torch.tensor([0.3, -1.2, 2.0, 0.1]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_the_gradient_of_each_loss_is_output_minus_target(kind):
    n = 1 if kind == "regression" else 3
    logits = torch.randn(4, n, dtype=torch.float64, generator=generator(0), requires_grad=True)
    wanted = targets(kind, LABELS[kind], n, 0.1)
    losses(kind, logits, wanted).sum().backward()
    torch.testing.assert_close(logits.grad, (outputs(kind, logits) - wanted).detach())


def test_classes_have_torchs_cross_entropy_and_labels_its_binary_one():
    logits = torch.randn(4, 3, dtype=torch.float64, generator=generator(0))
    found = losses("classes", logits, targets("classes", LABELS["classes"], 3, 0.1)).mean()
    expected = F.cross_entropy(logits, LABELS["classes"], label_smoothing=0.1)
    torch.testing.assert_close(found, expected)
    labels = LABELS["multilabel"]
    found = losses("multilabel", logits, targets("multilabel", labels, 3, 0.0)).mean()
    expected = F.binary_cross_entropy(logits.sigmoid(), labels.double(), reduction="none")
    torch.testing.assert_close(found, expected.sum(dim=1).mean())


def draw(n, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6))
    truth = features @ np.array([1.0, -2, 0.5, 0, 0, 1])
    return torch.from_numpy(features), torch.from_numpy(truth + 0.3 * rng.normal(size=n))


def test_a_head_of_values_comes_near_to_ridge_regression():
    (x, y), val, test = draw(120, 0), draw(60, 1), draw(200, 2)
    settings = dataclasses.replace(SETTINGS, learning_rate=0.03, epochs=300, label_smoothing=0.5)
    one = TrainingSet(y, lambda epoch, gen: (x, torch.arange(120)), generator(0))
    [head] = train_heads([one], *val, 1, 30, settings, "regression")
    ours = compute_metric("r2", head.probabilities(test[0]).numpy(), test[1].numpy(), "regression")
    theirs = Ridge(1.0).fit(x, y).score(test[0], test[1])
    assert ours == pytest.approx(theirs, abs=0.01) and ours > 0.9
    assert set(head.watch.curve[0]) >= {"val_mae", "val_r2"}


def test_a_head_of_several_labels_learns_each():
    def labelled(n, seed):
        x, _ = draw(n, seed)
        return x, (x[:, :2] > 0).long()

    (x, y), val, test = labelled(120, 0), labelled(60, 1), labelled(200, 2)
    settings = dataclasses.replace(SETTINGS, learning_rate=0.03, epochs=100)
    one = TrainingSet(y, lambda epoch, gen: (x, torch.arange(120)), generator(0))
    [head] = train_heads([one], *val, 2, 30, settings, "multilabel")
    found = head.probabilities(test[0]).numpy()
    assert compute_metric("auroc", found, test[1].numpy(), "multilabel") > 0.95
    assert found.sum(axis=1).max() > 1.2, "an image may have both"


@pytest.mark.parametrize(
    ("kind", "labels", "val"),
    [
        ("multilabel", lambda x: (x[:, :2] > 0).long(), torch.ones(16, 2).long()),
        ("regression", lambda x: x[:, 0], torch.full((16,), 0.5, dtype=torch.float64)),
    ],
)
def test_where_validation_has_no_score_the_loss_chooses_the_epoch(kind, labels, val):
    """Neither an AUROC of one label nor an R² of one value exists: no reason to stay untrained."""
    (x, _), n = draw(64, 0), 2 if kind == "multilabel" else 1
    one = TrainingSet(labels(x), lambda epoch, gen: (x, torch.arange(64)), generator(0))
    settings = dataclasses.replace(SETTINGS, epochs=15, min_delta=0.0)
    [head] = train_heads([one], x[:16], val, n, 16, settings, kind)
    losses_of = [row["val_loss" if kind == "multilabel" else "val_mae"] for row in head.watch.curve]
    assert 0 < head.watch.best_epoch == 1 + int(np.argmin(losses_of))
    assert head.weight.abs().max() > 1e-3, "far from the initial 2e-5"
    assert head.watch.context["epoch_chosen_by"] in ("validation loss", "validation mae")


def test_neighbours_give_shares_of_labels_and_means_of_values():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    asked = torch.tensor([[1.0, 1.0]])
    values = knn_probabilities(bank, torch.tensor([10.0, 20.0, 90.0]), asked, 1, 2, 1.0,
                               "regression")  # fmt: skip
    assert values.tolist() == [[pytest.approx(15.0)]]
    labels = torch.tensor([[1, 1], [0, 1], [1, 0]])
    shares = knn_probabilities(bank, labels, asked, 2, 2, 1.0, "multilabel")
    assert shares.tolist() == [[pytest.approx(0.5), pytest.approx(1.0)]]
