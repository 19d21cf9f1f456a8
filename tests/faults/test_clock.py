"""Clocks that were set: what is stored is known by its content, not by its time."""

from __future__ import annotations

import os

import numpy as np
import pytest

from linprobe.datasets import read_data_set
from linprobe.store import FeatureStore
from retfiner.vision import read_image
from tests.helpers.image_files import bscans
from tests.helpers.refinement import write_image

TIMES = [0, 1, 2**31, 4_000_000_000]


@pytest.mark.parametrize("time", TIMES)
def test_features_are_used_whatever_their_time(tmp_path, time):
    store = FeatureStore(tmp_path)
    store.write("key", np.ones((2, 3), np.float32))
    os.utime(store.path("key"), (time, time))
    assert np.array_equal(store.read("key", 2), np.ones((2, 3), np.float32))


@pytest.mark.parametrize("time", TIMES)
def test_a_data_set_is_the_same_whatever_its_time_and_another_with_other_pixels(tmp_path, time):
    for split in ("train", "val", "test"):
        for k, label in enumerate(("A", "B")):
            write_image(tmp_path / split / label / "a.png", k)
    first = read_data_set(tmp_path).sha256
    image = tmp_path / "train" / "A" / "a.png"
    os.utime(image, (time, time))
    assert read_data_set(tmp_path).sha256 == first
    write_image(image, 7)
    os.utime(image, (time, time))
    assert read_data_set(tmp_path).sha256 != first


def test_a_volume_that_was_replaced_by_an_older_one_is_read_anew(tmp_path):
    """Opened volumes are kept by time and size: any other time counts, not only a later one."""
    path = tmp_path / "a.npy"
    volume = bscans(3)
    np.save(path, volume)
    assert np.allclose(read_image(f"{path}#1") * 255, volume[1])
    np.save(path, volume[::-1])
    os.utime(path, (10, 10))
    assert np.allclose(read_image(f"{path}#0") * 255, volume[2])
