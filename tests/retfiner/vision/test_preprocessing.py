"""Resizing against Pillow, the augmentation's bounds and its seed."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision import (
    BACKBONES,
    Augmentation,
    AugmentedTransform,
    EvaluationTransform,
    augmented_transform,
    backbone_from_state,
    evaluation_transform,
    preprocessing,
)

from . import layouts


def bscan(height: int = 37, width: int = 53) -> np.ndarray:
    """Give a smooth layered image with noise, integers from 0 to 255."""
    y, x = np.mgrid[:height, :width]
    wave = np.sin(y / 5 + np.sin(x / 9)) + 0.3 * np.random.default_rng(0).standard_normal(x.shape)
    return np.round((wave - wave.min()) / (wave.max() - wave.min()) * 255).astype(np.int64)


EIGHT = bscan().astype(np.uint8)


@pytest.mark.parametrize("size", [16, 37, 224])
def test_resizing_is_pillows_bilinear(size):
    """Smaller, equal in one direction, and larger; the aspect ratio is not kept."""
    gray = (EIGHT / 255).astype(np.float32)
    got = EvaluationTransform(size, (0.0,), (1.0,), 1)(gray)
    expected = np.asarray(Image.fromarray(gray).resize((size, size), Image.Resampling.BILINEAR))
    assert (got.shape, got.dtype) == ((1, size, size), torch.float32)
    np.testing.assert_allclose(got[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("size", [16, 37, 224])
def test_bicubic_resizing_is_pillows_within_the_range_of_intensities(size):
    gray = (EIGHT > 127).astype(np.float32)  # edges, beyond which a cubic overshoots
    got = EvaluationTransform(size, (0.0,), (1.0,), 1, interpolation="bicubic")(gray)
    expected = np.asarray(Image.fromarray(gray).resize((size, size), Image.Resampling.BICUBIC))
    assert expected.min() < -0.02 and expected.max() > 1.02
    # Pillow's weights are in double precision, torch's are not.
    np.testing.assert_allclose(got[0].numpy(), expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_normalisation_of_each_backbone(name):
    spec = BACKBONES[name]
    gray = (EIGHT / 255).astype(np.float32)
    gray = gray * 0.5 + 0.2
    transform = evaluation_transform(replace(spec, image_size=37))
    got = transform(gray)
    assert got.shape == (spec.in_chans, 37, 37)
    if name in ("MIRAGE", "MultiMAE"):
        gray = (gray - gray.min()) / (gray.max() - gray.min())
    resized = np.asarray(Image.fromarray(gray).resize((37, 37), Image.Resampling.BILINEAR))
    for channel, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
        np.testing.assert_allclose(got[channel], (resized - mean) / std, atol=2e-5)


def test_published_means_and_sizes():
    assert BACKBONES["RETFound"].mean == (0.485, 0.456, 0.406)
    assert BACKBONES["VisionFM"].mean == (0.21091926, 0.21091926, 0.21091919)
    assert BACKBONES["VisionFM"].std == (0.17598894, 0.17598891, 0.17598893)
    assert BACKBONES["EyeCLIP"].mean == (0.48145466, 0.4578275, 0.40821073)
    assert BACKBONES["EyeCLIP"].std == (0.26862954, 0.26130258, 0.27577711)
    for name in ("OCTCube", "Uni4Eye++"):
        assert (BACKBONES[name].mean, BACKBONES[name].std) == ((0, 0, 0), (1, 1, 1))
    sizes = {name: spec.image_size for name, spec in BACKBONES.items()}
    special = {"MIRAGE": 512, "MultiMAE": 512, "RETFound-Green": 392, "OCTCube": 256}
    assert sizes == dict.fromkeys(BACKBONES, 224) | special


def test_constant_image_under_min_max():
    got = EvaluationTransform(8, (0.0,), (1.0,), 1, min_max=True)(np.full((9, 9), 0.3, np.float32))
    torch.testing.assert_close(got, torch.full((1, 8, 8), 0.3))


def test_transforms_of_a_loaded_backbone_take_its_image_size():
    backbone = backbone_from_state("VisionFM", layouts.vit(), 32, 4)
    for make in (evaluation_transform, augmented_transform):
        transform = make(backbone)
        assert (transform.image_size, transform.mean) == (32, backbone.spec.mean)
    x = evaluation_transform(backbone)((EIGHT / 255).astype(np.float32))
    assert backbone.features(x[None]).shape == (1, 96)


def test_only_gray_images():
    with pytest.raises(InputError, match="gray"):
        EvaluationTransform(8, (0.0,), (1.0,), 1)(np.zeros((3, 9, 9), np.float32))


AUGMENTED = AugmentedTransform(32, (0.0,), (1.0,), 1)
GRAY = (EIGHT / 255).astype(np.float32)


def test_augmentation_depends_on_its_generator_alone():
    def draw(seed: int) -> torch.Tensor:
        return AUGMENTED(GRAY, torch.Generator().manual_seed(seed))

    before = torch.random.get_rng_state()
    first = draw(0)
    torch.rand(3)
    np.random.default_rng(0).random(3)
    torch.testing.assert_close(draw(0), first, rtol=0, atol=0)
    assert not torch.equal(draw(1), first)
    torch.random.set_rng_state(before)
    draw(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_call_draws_equally_many_numbers():
    """Whatever is applied to one image, the next one's draws do not shift."""
    left, right = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    for _ in range(20):
        AUGMENTED(GRAY, left)
        AUGMENTED(np.zeros((9, 9), np.float32), right)
        assert torch.equal(left.get_state(), right.get_state())


def test_augmentation_stays_within_its_bounds():
    """A centred bright disc: its brightness, its area and its shift tell what was done to it."""
    y, x = np.mgrid[:64, :64] - 31.5
    disc = np.where(y**2 + x**2 < 12**2, 0.6, 0.0).astype(np.float32)
    transform = AugmentedTransform(64, (0.0,), (1.0,), 1)
    generator = torch.Generator().manual_seed(3)
    plain = EvaluationTransform(64, (0.0,), (1.0,), 1)(disc)
    area = float((plain > 0).sum())
    gains, areas, shifts, untouched = [], [], [], 0
    for _ in range(400):
        got = transform(disc, generator)[0]
        gain = float(got[got > 0].median()) / 0.6
        gains.append(gain)
        areas.append(float((got > 0.3 * gain).sum()) / area)
        rows, columns = torch.nonzero(got > 0.3 * gain, as_tuple=True)
        shifts.append((float(columns.float().mean()) - 31.5, float(rows.float().mean()) - 31.5))
        untouched += bool(torch.allclose(got / gain, plain[0], atol=1e-4))
    assert 0.799 < min(gains) < 0.81
    assert 1.19 < max(gains) < 1.201
    assert 0.9**2 - 0.03 < min(areas) < 0.85
    assert 1.17 < max(areas) < 1.1**2 + 0.03
    furthest = np.abs(np.array(shifts)).max(axis=0)
    assert ((furthest > 5.8) & (furthest < 6.6)).all()
    assert 20 < untouched < 65  # the affine map is left out in one of ten


def test_flip_and_rotation():
    """A bar left of the centre comes out right of it half the time, and turned by few degrees."""
    y, x = np.mgrid[:64, :64] - 31.5
    bar = np.where((abs(x + 15) < 2) & (abs(y) < 14), 1.0, 0.0).astype(np.float32)
    transform = AugmentedTransform(64, (0.0,), (1.0,), 1)
    generator = torch.Generator().manual_seed(4)
    flipped, angles = 0, []
    for _ in range(400):
        got = transform(bar, generator)[0]
        rows, columns = torch.nonzero(got > 0.4, as_tuple=True)
        flipped += bool(columns.float().mean() > 31.5)
        slope = np.polyfit(rows.numpy(), columns.numpy(), 1)[0]
        angles.append(abs(np.degrees(np.arctan(slope))))
    assert 160 < flipped < 240
    assert 9 < max(angles) < 16  # rotation up to 10 degrees and shear up to 5 more


def test_border_is_filled_with_black_before_the_normalisation():
    white = np.ones((40, 40), np.float32)
    transform = AugmentedTransform(40, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    generator = torch.Generator().manual_seed(0)
    lowest = min(float(transform(white, generator).min()) for _ in range(20))
    assert lowest == pytest.approx(-2.0)


def test_channels_stay_equal_under_augmentation():
    got = AugmentedTransform(32, (0.0,) * 3, (1.0,) * 3)(GRAY, torch.Generator().manual_seed(0))
    assert torch.equal(got[0], got[1])
    assert torch.equal(got[0], got[2])


@pytest.mark.parametrize("make", [evaluation_transform, augmented_transform])
def test_transforms_can_be_sent_to_workers(make):
    transform = make(BACKBONES["VisionFM"])
    assert pickle.loads(pickle.dumps(transform)) == transform


def _in_a_worker(transform: AugmentedTransform) -> list[float]:
    torch.set_num_threads(1)
    return transform(GRAY, torch.Generator().manual_seed(5)).flatten().tolist()


def test_a_spawned_worker_computes_the_same():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_in_a_worker, (AUGMENTED,))
    np.testing.assert_allclose(there, _in_a_worker(AUGMENTED), atol=1e-6)


def test_an_augmentation_of_zeros_is_the_evaluation_transform():
    nothing = AugmentedTransform(32, (0.1,), (0.3,), 1, augmentation=Augmentation(*[0.0] * 7))
    clean = EvaluationTransform(32, (0.1,), (0.3,), 1)
    assert torch.equal(nothing(GRAY, torch.Generator().manual_seed(3)), clean(GRAY))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Augmentation)])
def test_every_number_of_the_augmentation_has_an_effect(name):
    less = AugmentedTransform(32, (0.0,), (1.0,), 1, augmentation=Augmentation(**{name: 0.0}))
    views = [
        [transform(GRAY, torch.Generator().manual_seed(seed)) for seed in range(20)]
        for transform in (AUGMENTED, less)
    ]
    assert any(not torch.equal(*pair) for pair in zip(*views, strict=True))


def smooth(count: int = 6, size: int = 64) -> torch.Tensor:
    """Give images without an edge at the border, where zeros come in."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    bump = (1 - x**2).clamp(0) ** 2 * (1 - y**2).clamp(0) ** 2
    waves = [0.5 + 0.4 * torch.sin(5 * x * (k + 1) + 3 * y) for k in range(count)]
    return torch.stack([bump * wave for wave in waves])[:, None]


def test_a_batch_is_augmented_as_each_image_alone():
    gray = smooth()
    transform = AugmentedTransform(64, (0.4,), (0.2,), 1)
    draws = torch.rand(6, 8, generator=torch.Generator().manual_seed(3))
    black, white = (torch.tensor([(v - 0.4) / 0.2]) for v in (0.0, 1.0))
    normalised = torch.stack([transform.normalised(image) for image in gray])
    got = preprocessing.augment_batch(normalised, black, white, torch.Generator().manual_seed(3))
    flips = 0
    for image, row, result in zip(gray, draws, got, strict=True):
        expected = transform.augmented_by(image, row.tolist())
        assert (result - expected).abs().max() < 0.02  # of a range of 5
        flips += bool(row[0] < 0.5)
    assert 0 < flips < 6
    assert (got - normalised).abs().amax((1, 2, 3)).min() > 0.5


def test_each_process_augments_its_rows_as_one_alone_would():
    images = smooth()
    black, white = torch.zeros(1), torch.ones(1)

    def augment(part, **place):
        return preprocessing.augment_batch(
            part, black, white, torch.Generator().manual_seed(5), **place
        )

    halves = [augment(images[:2], total=6), augment(images[2:], total=6, first=2)]
    torch.testing.assert_close(torch.cat(halves), augment(images), rtol=0, atol=1e-6)


def test_nothing_to_augment_by_leaves_images_as_they_are():
    nothing = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    images = smooth()
    got = preprocessing.augment_batch(
        images, torch.zeros(1), torch.ones(1), torch.Generator(), augmentation=nothing
    )
    torch.testing.assert_close(got, images, rtol=0, atol=1e-6)
