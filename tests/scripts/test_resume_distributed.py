"""Runs of several processes that are killed, or told to stop, go on to the bit."""

from __future__ import annotations

import os
import random
import signal

import pytest
import torch

from retfiner.export.extract import ExtractConfig, extract
from retfiner.training.resume import AUTO
from retfiner.vision import load_backbone
from tests.helpers.forks import checkpoint_of, forking, kill_again_and_again, wait_until
from tests.helpers.refinement import make_material, metrics_of, settings
from tests.helpers.same import assert_same_run, leaves

pytestmark = pytest.mark.slow
PROCESSES = 2
QUICK = {"batch_size": 2, "checkpoint_every_n_steps": 1}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with forking(tmp_path_factory.mktemp("forks") / "log.txt") as forks:
        yield forks


def run_to_the_end(forks, config):
    """Run in two processes; however often it was interrupted, it leaves one folder."""
    statuses = forks.run_together(config, PROCESSES)
    assert statuses == [0, 0], forks.log.read_text(errors="replace")[-3000:]
    (folder,) = config.output_dir.iterdir()
    assert not list(folder.glob(".*")), "nothing half written is left"
    return folder


@pytest.fixture(scope="module")
def whole(forks, material, tmp_path_factory):
    """Runs that nobody interrupts, one a strategy."""
    made = {}

    def whole(strategy):
        if strategy not in made:
            config = settings(
                material, tmp_path_factory.mktemp("whole"), strategy=strategy, **QUICK
            )
            made[strategy] = run_to_the_end(forks, config)
        return made[strategy]

    return whole


def checkpoint(folder, name="last.ckpt"):
    return torch.load(folder / name, weights_only=True)


def tensors(content):
    parts = {"weights": content["state_dict"]}
    for group in content.get("optimizer_states", []):
        parts["states"] = group["state"]
    return {place: value for place, value in leaves(parts) if isinstance(value, torch.Tensor)}


def assert_close_runs(found, expected):
    """The same run but for the order in which numbers are added up."""
    rows, others = metrics_of(found), metrics_of(expected)
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    for row, other in zip(rows, others, strict=True):
        for name, value in other.items():
            assert bool(row[name]) == bool(value)
            if value:
                assert float(row[name]) == pytest.approx(float(value), rel=1e-5), name
    for name in ("last.ckpt", "best-model.ckpt"):
        one, two = tensors(checkpoint(found, name)), tensors(checkpoint(expected, name))
        assert list(one) == list(two)
        for place, value in two.items():
            assert type(one[place]) is type(value)
            torch.testing.assert_close(one[place], value, rtol=1e-3, atol=1e-4, msg=place)


def bytes_of(state):
    """Count the bytes that a state's tensors hold, those that share them once."""
    storages = {value.untyped_storage().data_ptr(): value for value in state.values()}
    return sum(value.untyped_storage().nbytes() for value in storages.values())


def test_split_weights_leave_the_files_of_copied_ones(whole, tmp_path):
    split, copied = whole("fsdp"), whole("ddp")
    assert_close_runs(split, copied)
    groups = [checkpoint(run)["optimizer_states"][0]["param_groups"] for run in (split, copied)]
    assert groups[0] == groups[1]
    held = [bytes_of(checkpoint(run, "best-model.ckpt")["state_dict"]) for run in (split, copied)]
    assert held[0] == held[1], "tied weights lie in a file once"
    written = extract(ExtractConfig(split / "best-model.ckpt", output=tmp_path / "vision.pth"))
    encoder = load_backbone(written).encoder.state_dict()
    weights = checkpoint(split, "best-model.ckpt")["state_dict"]
    for name, value in encoder.items():
        assert torch.equal(value, weights[f"model.vision_encoder.{name}"])


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": ["itc", "gm"], "unfreeze_last": 1, "layer_decay": 0.7, "gradient_clip_val": 0.5},
        {"lora_rank": 2, "gradient_checkpointing": True, "accumulate_grad_batches": 3},
    ],
    ids="-".join,
)
def test_what_else_is_asked_for_means_the_same(forks, material, tmp_path, changes):
    folders = []
    for strategy in ("fsdp", "ddp"):
        changes |= {"strategy": strategy, "max_epochs": 1}
        folders.append(
            run_to_the_end(forks, settings(material, tmp_path / strategy, **(QUICK | changes)))
        )
    assert_close_runs(*folders)


@pytest.mark.parametrize(("strategy", "kills"), [("ddp", 4), ("fsdp", 2)])
def test_runs_that_are_killed_at_any_moment(forks, material, whole, tmp_path, strategy, kills):
    config = settings(material, tmp_path, resume=AUTO, strategy=strategy, **QUICK)
    kill_again_and_again(forks, config, kills, random.Random(kills), PROCESSES)
    assert_same_run(whole(strategy), run_to_the_end(forks, config))


@pytest.mark.parametrize(("strategy", "told"), [("ddp", 1), ("fsdp", 0)])
def test_a_run_of_which_one_process_is_told_to_stop(
    forks, material, whole, tmp_path, strategy, told
):
    config = settings(material, tmp_path, resume=AUTO, strategy=strategy, **QUICK)
    pids = forks.start_together(config, PROCESSES)
    wait_until(lambda: checkpoint_of(tmp_path) is not None, "a checkpoint")
    os.kill(pids[told], signal.SIGTERM)
    assert [forks.wait(pid) for pid in pids] == [128 + signal.SIGTERM] * PROCESSES
    assert "stopped by SIGTERM; saved at step" in forks.log.read_text(errors="replace")
    assert_same_run(whole(strategy), run_to_the_end(forks, config))
