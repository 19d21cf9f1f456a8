"""The adjustable augmentation against the shared room's fixed one."""

import numpy as np
import pytest
import torch
from tests.helpers.small import small_backbone

from linprobe.augmentation import Augmentation, adjustable_transform
from retfiner.vision import augmented_transform, evaluation_transform


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((50, 40), dtype=np.float32)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def test_at_its_defaults_it_is_the_published_augmentation(backbone, image):
    ours, fixed = adjustable_transform(backbone, Augmentation()), augmented_transform(backbone)
    for seed in range(30):
        assert torch.equal(ours(image, gen(seed)), fixed(image, gen(seed)))


def test_at_zero_it_is_the_evaluation_transform(backbone, image):
    nothing = adjustable_transform(backbone, Augmentation(0, 0, 0, 0, 0, 0, 0))
    assert torch.equal(nothing(image, gen(3)), evaluation_transform(backbone)(image))


@pytest.mark.parametrize(
    "name", ["flip", "intensity", "affine", "rotation", "translation", "scale", "shear"]
)
def test_every_number_has_an_effect(backbone, image, name):
    default = adjustable_transform(backbone, Augmentation())
    less = adjustable_transform(backbone, Augmentation(**{name: 0.0}))
    assert any(not torch.equal(default(image, gen(s)), less(image, gen(s))) for s in range(20))
