"""Class means, against a plain loop."""

import numpy as np
import torch

from linprobe.probes.prototype import prototype_probabilities


def test_it_is_a_softmax_of_distances_to_centred_class_means():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(9, 5)), rng.normal(size=(4, 5))
    labels = np.array([0, 0, 0, 1, 1, 1, 3, 3, 3])
    centre = train.mean(0)

    def unit(x):
        return (x - centre) / np.linalg.norm(x - centre)

    expected = np.zeros((4, 4))
    for k, x in enumerate(test):
        for label in (0, 1, 3):
            mean = np.mean([unit(one) for one in train[labels == label]], axis=0)
            expected[k, label] = np.exp(-np.sum((unit(x) - mean) ** 2) / 0.1)
    expected /= expected.sum(1, keepdims=True)
    tensors = (torch.from_numpy(x) for x in (train, labels, test))
    found = prototype_probabilities(*tensors, n_classes=4, temperature=0.1)
    np.testing.assert_allclose(found, expected)
    assert not found[:, 2].any()  # a class without a training image
