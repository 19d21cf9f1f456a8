"""Extraction: the published definition, an untouched encoder, each image once a view."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from linprobe.datasets import read_data_set
from linprobe.features import Extractor, View
from linprobe.store import FeatureStore
from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.vision import (
    Augmentation,
    augmented_transform,
    backbone_from_state,
    evaluation_transform,
    load_backbone,
    read_image,
)
from tests.helpers.bounded import bounded
from tests.helpers.disk import no_file_larger_than
from tests.helpers.probing_data import small_probe
from tests.retfiner.vision import layouts

ASSET = Path(__file__).parents[1] / "assets" / "probing_features.json"
FIGURES = json.loads(ASSET.read_text(encoding="utf-8"))
METHODS = ("concat_prenorm", "concat_postnorm", "global_pool", "cls_token")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    config = small_probe(tmp_path_factory.mktemp("probe"))
    return config, read_data_set(config.data_root / "OCTID")


@pytest.fixture
def make(material, tmp_path):
    def make(**options):
        return Extractor(
            load_backbone(material[0].init_weights),
            options.pop("method", "concat_prenorm"),
            FeatureStore(tmp_path / "features"),
            device=torch.device("cpu"),
            **options,
        )

    return make


def views_of(extractor, n=3):
    clean = View(evaluation_transform(extractor.backbone))
    augmented = augmented_transform(extractor.backbone, Augmentation())
    return [clean, *(View(augmented, ("view", 0, k)) for k in range(n - 1))]


def fill(name, shape):
    draw = 0.2 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    is_norm = name.endswith("weight") and "norm" in name.rpartition(".")[0]
    return torch.from_numpy(1 + draw if is_norm else draw)


@pytest.mark.parametrize("method", METHODS)
def test_features_are_those_of_the_published_protocol(tmp_path, method):
    shapes = layouts.vit_shapes(width=48, depth=2, patch=8, positions=17)
    state = {name: fill(name, shape) for name, shape in shapes.items()}
    backbone = backbone_from_state("RETFound", state, image_size=32, num_heads=4)
    extractor = Extractor(backbone, method, FeatureStore(tmp_path), device=torch.device("cpu"))
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3, 32, 32)))
    features = extractor.encode(images).numpy()
    assert features.dtype == np.float64
    figures = FIGURES[method]
    assert list(features.shape) == figures["shape"]
    for got, key in (
        (features[0, :8], "row0_first8"),
        (features[0, -8:], "row0_last8"),
        (features[5, :8], "row5_first8"),
        (np.abs(features).sum(), "abs_sum"),
    ):
        np.testing.assert_allclose(got, figures[key], rtol=1e-8, atol=1e-8)


def test_rows_are_the_images_in_order(make, material):
    extractor, split = make(batch_size=5), material[1].splits["val"]
    transform = evaluation_transform(extractor.backbone)
    images = torch.stack([transform(read_image(path)) for path in split.paths])
    with torch.no_grad():
        expected = extractor.backbone.features(images, "concat_prenorm")
    got = extractor.stored(split, [View(transform)])[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_encoder_is_in_evaluation_mode_and_keeps_every_byte(material, tmp_path):
    backbone = load_backbone(material[0].init_weights)
    backbone.encoder.blocks[0].drop_path1 = nn.Dropout(0.5)  # stands in for stochastic depth
    backbone.encoder.train()
    before = {k: v.numpy().tobytes() for k, v in backbone.encoder.state_dict().items()}
    extractor = Extractor(
        backbone, "concat_prenorm", FeatureStore(tmp_path), device=torch.device("cpu")
    )
    split, views = material[1].splits["val"], views_of(extractor)
    for view in views:
        assert torch.equal(extractor.fresh(split, view), extractor.fresh(split, view))
    assert not any(module.training for module in backbone.encoder.modules())
    assert not any(parameter.requires_grad for parameter in backbone.encoder.parameters())
    assert {k: v.numpy().tobytes() for k, v in backbone.encoder.state_dict().items()} == before


def test_an_image_looks_the_same_in_any_batch_place_and_process(make, material):
    split = material[1].splits["train"]
    reference = make(batch_size=64)
    views = views_of(reference)
    expected = [reference.fresh(split, view) for view in views]
    order = np.random.default_rng(0).permutation(len(split))
    other = make(batch_size=4, num_workers=2)
    for view, features in zip(views, expected, strict=True):
        got = other.fresh(split.subset(order), view)
        torch.testing.assert_close(got, features[order], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected[1], expected[2])


def test_each_image_is_encoded_once_a_view_and_never_again(make, material):
    split = material[1].splits["train"]
    first = make()
    two = first.stored(split, views_of(first, 2))
    assert first.images_encoded == 2 * len(split)
    later = make()  # as another process would: only the view that is new is computed
    three = later.stored(split, views_of(later, 3))
    assert later.images_encoded == len(split)
    assert torch.equal(three[:2], two)
    other_kind = make(method="cls_token")
    other_kind.stored(split, views_of(other_kind, 1))
    assert other_kind.images_encoded == len(split)


def test_every_unreadable_image_is_named(make, material, tmp_path):
    config = small_probe(tmp_path / "damaged")
    folder = config.data_root / "OCTID" / "train"
    bad = sorted(folder.glob("*/*.png"))[3:20:8]
    for path in bad:
        path.write_bytes(path.read_bytes()[:60])
    extractor = make()
    split = read_data_set(config.data_root / "OCTID").splits["train"]
    for workers in (0, 1):
        extractor.num_workers = workers
        with pytest.raises(InputError) as error:
            extractor.stored(split, views_of(extractor, 1))
        assert f"{len(bad)} images cannot be used" in str(error.value)
        assert all(str(path) in str(error.value) for path in bad)
    assert not extractor.store.folder.exists()


def test_images_that_find_no_shared_memory_are_told_and_not_awaited(make, material):
    extractor = make(num_workers=1)

    def fails():
        with explained_faults(), no_file_larger_than(5_000):
            extractor.fresh(material[1].splits["train"], views_of(extractor)[0])

    found = bounded(fails, seconds=100)
    assert found.kind == "InputError", found
    assert "too little shared memory" in found.text
