"""The neighbours' vote against a loop."""

import numpy as np
import pytest
import torch

from linprobe.probes.knn import knn_probabilities


def naive(train, labels, features, n_classes, k, temperature):
    votes = np.zeros((len(features), n_classes))
    for row, x in enumerate(features):
        cosine = [float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) for y in train]
        for index in np.argsort(cosine)[::-1][:k]:
            votes[row, labels[index]] += np.exp(cosine[index] / temperature)
    return votes / votes.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 100])
def test_against_a_loop(k):
    rng = np.random.default_rng(0)
    train, features = rng.normal(size=(30, 6)), rng.normal(size=(11, 6))
    labels = rng.integers(0, 3, 30)
    got = knn_probabilities(*map(torch.from_numpy, (train, labels, features)), 4, k, 0.07)
    np.testing.assert_allclose(got, naive(train, labels, features, 4, k, 0.07), atol=1e-12)


def test_the_nearest_wins_whatever_the_length():
    train = torch.tensor([[1.0, 0.0], [0.0, 9.0]])
    got = knn_probabilities(train, torch.tensor([0, 1]), torch.tensor([[50.0, 1.0]]), 2, 2, 0.07)
    assert got.argmax() == 0
