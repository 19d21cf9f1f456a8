"""Checkpoints are written whole or not at all."""

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.training.checkpoint_io import AtomicCheckpointIO, remove_leftovers


def checkpoint(weight=1.0, moment=0.5):
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.tensor([moment])}}
    return {
        "state_dict": {"w": torch.tensor([weight]), "ids": torch.tensor([2])},
        "optimizer_states": [{"state": state, "param_groups": []}],
    }


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    found = AtomicCheckpointIO().load_checkpoint(path)
    assert found["state_dict"]["w"] == torch.tensor([1.0])
    assert found["optimizer_states"][0]["state"][0]["exp_avg"] == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (checkpoint(weight=float("nan")), "1 of 3 tensors: w"),
        (checkpoint(weight=float("inf")), "1 of 3 tensors: w"),
        (checkpoint(moment=float("-inf")), "1 of 3 tensors: exp_avg of parameter 0"),
    ],
)
def test_a_number_that_is_not_finite_is_not_written_over_the_last_good_ones(
    tmp_path, content, named
):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="left the finite numbers") as caught:
        AtomicCheckpointIO().save_checkpoint(content, path)
    assert named in str(caught.value)
    assert path.read_bytes() == before


def test_what_could_not_be_read_again_is_not_written(tmp_path):

    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    before = path.read_bytes()
    unsafe = checkpoint() | {"callbacks": {"x": pytest.approx}}
    with pytest.raises(InputError, match="cannot be read safely"):
        AtomicCheckpointIO().save_checkpoint(unsafe, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_damaged_checkpoint_is_said_to_be_one(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".last-ab12.ckpt", ".best-model-x.ckpt", ".metrics-1.csv", ".keep", "last.ckpt"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".keep", "last.ckpt"}
