"""A disk that fills up, and folders that cannot be written to."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from linprobe.store import FeatureStore
from retfiner.common.errors import InputError
from retfiner.data.pairs import ImageCache
from retfiner.export.extract import ExtractConfig, extract
from retfiner.refine import refine
from retfiner.vision import load_backbone, read_checkpoint, save_backbone
from tests.helpers.disk import no_file_larger_than
from tests.helpers.refinement import make_material, settings


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=16, patients=8)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith((".", "tmp"))]


def test_a_checkpoint_that_finds_no_room(material, tmp_path):
    """The run goes on from an earlier one, so that there is a checkpoint to lose."""
    config = settings(material, tmp_path / "models", max_epochs=1)
    folder = refine(config).folder
    before = {name: digest(folder / name) for name in ("best-model.ckpt", "last.ckpt")}
    more = settings(material, tmp_path / "models", max_epochs=3, resume=folder)
    with (
        no_file_larger_than(100_000),
        pytest.raises(InputError, match="the disk is full") as caught,
    ):
        refine(more)
    assert "make room" in str(caught.value)
    for name, value in before.items():
        assert digest(folder / name) == value
        assert read_checkpoint(folder / name).content["state_dict"]
    result = refine(more)  # with room again, it goes on
    assert read_checkpoint(result.folder / "last.ckpt").content["epoch"] >= 2


@pytest.mark.slow
def test_a_first_checkpoint_that_finds_no_room_is_not_half_there(material, tmp_path):
    config = settings(material, tmp_path / "models", max_epochs=1)
    with no_file_larger_than(100_000), pytest.raises(InputError, match="the disk is full"):
        refine(config)
    for path in (tmp_path / "models").rglob("*.ckpt"):
        assert read_checkpoint(path).content["state_dict"]


def test_a_backbone_that_finds_no_room(material, tmp_path):
    output = tmp_path / "backbone.pth"
    backbone = load_backbone(material.weights)
    backbone.provenance["refined_by"] = "a test"
    save_backbone(tmp_path / "refined.pth", backbone)
    config = ExtractConfig(path_to_model=tmp_path / "refined.pth", output=output)
    extract(config)
    before = digest(output)
    with no_file_larger_than(50_000), pytest.raises(InputError, match="the disk is full"):
        extract(config)
    assert digest(output) == before
    assert not leftovers(tmp_path)


def test_features_that_find_no_room_leave_the_old_ones(tmp_path):
    store = FeatureStore(tmp_path)
    old = np.ones((4, 8), np.float32)
    store.write("key", old)
    with no_file_larger_than(1000), pytest.raises(InputError, match="cannot be stored"):
        store.write("key", np.zeros((400, 8), np.float32))
    assert np.array_equal(store.read("key", 4), old)
    assert not leftovers(tmp_path)


def test_an_image_cache_that_finds_no_room_says_so_before_training(tmp_path, monkeypatch):
    """Written to through memory, a file without room would end the process by a bus error."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with no_file_larger_than(50_000), pytest.raises(InputError, match="no room for --image_cache"):
        ImageCache(100, 32)
    assert list(tmp_path.iterdir()) == []
    cache = ImageCache(100, 32)
    used = sum(path.stat().st_blocks * 512 for path in cache.path.parent.iterdir())
    assert used >= 100 * 32 * 32  # the room is taken, not only promised
    assert torch.equal(cache.get(3, lambda: torch.ones(1, 32, 32)), torch.ones(1, 32, 32))


@pytest.mark.parametrize("place", ["a file/models", "/proc/models", "/dev/null/models"])
def test_folders_that_cannot_be_written(material, tmp_path, place):
    """Also for root, whom permissions do not stop."""
    (tmp_path / "a file").write_text("x")
    with pytest.raises(InputError, match="no run folder can be made"):
        refine(settings(material, tmp_path / place))
    assert (tmp_path / "a file").read_text() == "x"
    with pytest.raises(InputError, match="cannot be"):
        FeatureStore(tmp_path / place).write("key", np.ones((2, 2), np.float32))
