"""The feature store: keys follow the content, files are whole."""

import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch

from linprobe.store import FeatureStore, encoder_digest, feature_key
from retfiner.common.errors import InputError
from retfiner.vision import Augmentation, augmented_transform, evaluation_transform
from tests.helpers.small import small_backbone


def test_the_digest_follows_every_weight():
    backbone = small_backbone()
    before = encoder_digest(backbone)
    assert encoder_digest(backbone) == before
    digests = {before}
    with torch.no_grad():
        for parameter in backbone.encoder.parameters():
            parameter.view(-1)[-1] += 1e-3
            digests.add(encoder_digest(backbone))
    assert len(digests) == 1 + len(list(backbone.encoder.parameters()))
    assert encoder_digest(dataclasses.replace(backbone, num_heads=2)) not in digests


def test_the_key_follows_all_that_went_in():
    backbone = small_backbone()
    clean = evaluation_transform(backbone)
    augmented = augmented_transform(backbone, Augmentation())
    base = ["encoder", "concat", clean, (), ["a", "b"]]
    variants = [
        base,
        ["other", *base[1:]],
        ["encoder", "cls_token", *base[2:]],
        [*base[:2], dataclasses.replace(clean, image_size=64), *base[3:]],
        [*base[:2], dataclasses.replace(clean, std=(0.2, 0.2, 0.2)), *base[3:]],
        [*base[:2], augmented, ("view", 0, 0), ["a", "b"]],
        [*base[:2], augmented, ("view", 0, 1), ["a", "b"]],
        [*base[:2], augmented, ("view", 1, 0), ["a", "b"]],
        [*base[:2], augmented_transform(backbone, Augmentation(flip=0)), ("view", 0, 0), ["a"]],
        [*base[:4], ["b", "a"]],
        [*base[:4], ["a", "b", "c"]],
    ]
    assert len({feature_key(*variant) for variant in variants}) == len(variants)
    assert feature_key(*base) == feature_key(*base)


def test_what_was_written_is_read(tmp_path):
    store = FeatureStore(tmp_path / "features")
    table = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    assert store.read("k", 5) is None
    store.write("k", table)
    np.testing.assert_array_equal(store.read("k", 5), table)
    assert store.read("k", 4) is None
    assert [path.name for path in store.folder.iterdir()] == ["k.npy"]


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"", lambda b: b"x" + b[1:]])
def test_a_damaged_file_is_as_good_as_none(tmp_path, damage):
    store = FeatureStore(tmp_path)
    store.write("k", np.ones((5, 3), dtype=np.float32))
    store.path("k").write_bytes(damage(store.path("k").read_bytes()))
    assert store.read("k", 5) is None


def test_a_place_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"cannot be stored(.|\n)*--feature_store"):
        FeatureStore(tmp_path / "file").write("k", np.ones((2, 2)))


def _write_often(folder, value):
    store = FeatureStore(folder)
    for _ in range(40):
        store.write("k", np.full((50, 20), value, dtype=np.float32))


def test_two_writers_at_once_leave_one_whole_table(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(tmp_path, v)) for v in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    seen = [FeatureStore(tmp_path).read("k", 50) for _ in range(60)]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for table in [*seen, FeatureStore(tmp_path).read("k", 50)]:
        assert table is None or len(np.unique(table)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k.npy"]
