"""Where a run trains: what flags, torchrun and the machine say."""

from __future__ import annotations

import re

import pytest
from pytorch_lightning.strategies import DDPStrategy

from retfiner.common.errors import InputError
from retfiner.training.distributed.fsdp import ShardedStrategy
from retfiner.training.distributed.launch import is_rank_zero, resolve_hardware

VARIABLES = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME",
)  # fmt: skip


@pytest.fixture
def started(monkeypatch):
    """Set the environment that a launcher makes."""

    def started(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    started()
    return started


def placed(**changes):
    return resolve_hardware(**({"accelerator": "cpu"} | changes))


def torchrun(rank, local, total):
    return {
        "RANK": rank, "LOCAL_RANK": rank % local, "LOCAL_WORLD_SIZE": local, "WORLD_SIZE": total,
        "TORCHELASTIC_RUN_ID": "x",
    }  # fmt: skip


def test_one_device_is_what_is_taken_unless_more_are_asked_for(started):
    one = placed()
    assert (one.devices, one.nodes, one.processes, one.strategy) == (1, 1, 1, "auto")
    assert one.lightning_strategy() == "auto"
    assert isinstance(placed(strategy="ddp").lightning_strategy(), DDPStrategy)
    several = placed(devices="2", num_nodes=3)
    assert (several.processes, several.strategy) == (6, "ddp")
    assert isinstance(several.lightning_strategy(), DDPStrategy)


def test_weights_are_split_where_that_is_asked_for(started):
    split = placed(devices="2", strategy="fsdp")
    assert split.strategy == "fsdp"
    assert isinstance(split.lightning_strategy(), ShardedStrategy)


def test_torchrun_says_how_many(started):
    started(**torchrun(rank=5, local=4, total=8))
    hardware = placed()
    assert (hardware.devices, hardware.nodes, hardware.strategy) == (4, 2, "ddp")
    assert placed(devices="4", num_nodes=2) == hardware
    with pytest.raises(InputError, match=r"got: +2 on each of 2 for 4 on each of 2"):
        placed(devices="2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": "0"}, "a number of devices, auto, or all"),
        ({"devices": "two"}, "got: +two with --accelerator cpu"),
        ({"devices": "all"}, "all for every GPU"),
        ({"devices": "2", "accelerator": "mps"}, "at most 1"),
        ({"devices": "2", "batch_size": 1}, "at least 2 a device"),
        ({"strategy": "fsdp"}, "remedy: +--devices 2 or more"),
        ({"strategy": "fsdp", "devices": "2", "compile": True}, "leave --compile out"),
        ({"strategy": "fsdp", "devices": "2", "precision": "16-mixed"}, "float16 and --strategy"),
    ],
)
def test_what_cannot_be_is_refused(started, changes, words):
    with pytest.raises(InputError) as caught:
        placed(**changes)
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize(
    ("variables", "is_first"),
    [
        ({}, True),
        (torchrun(0, 2, 4), True),
        (torchrun(1, 2, 4), False),
        (torchrun(2, 2, 4), False),  # the first of the second machine
        ({"LOCAL_RANK": 1}, False),
        ({"LOCAL_RANK": 0}, True),
        ({"NODE_RANK": 1}, False),
        ({"SLURM_PROCID": 0}, True),
        ({"SLURM_PROCID": 3}, False),
    ],
)
def test_the_first_process_knows_itself(started, variables, is_first):
    started(**variables)
    assert is_rank_zero() == is_first


@pytest.mark.parametrize(
    ("tasks", "asked"),
    [(1, {"devices": "2"}), (2, {}), (4, {"devices": "2"}), (2, {"devices": "2", "num_nodes": 2})],
)
def test_slurm_with_other_tasks_than_devices_is_refused(started, tasks, asked):
    started(SLURM_NTASKS=tasks, SLURM_PROCID=0)
    with pytest.raises(InputError, match="not the same number") as caught:
        placed(**asked)
    assert f"SLURM_NTASKS={tasks}" in str(caught.value)
    assert "srun" in str(caught.value)


def test_slurm_with_a_task_a_device(started):
    started(SLURM_NTASKS=4, SLURM_PROCID=3)
    assert placed(devices="2", num_nodes=2).processes == 4
    started(SLURM_NTASKS=1, SLURM_PROCID=0)
    assert placed().processes == 1
    started(SLURM_NTASKS=2, SLURM_PROCID=1, RANK=1)  # as job scripts set it for torch
    assert placed(devices="2").processes == 2
    started(SLURM_NTASKS=1, **torchrun(1, 2, 2))  # torchrun within SLURM
    assert placed().processes == 2


@pytest.mark.parametrize(
    ("variables", "devices"),
    [({"RANK": 1}, "1"), ({"LOCAL_RANK": 1}, "1"), ({"NODE_RANK": 2}, "1"), ({"RANK": 0}, "2")],
)
def test_a_rank_that_no_launcher_set_is_named(started, variables, devices):
    started(**variables)
    with pytest.raises(InputError, match="another run") as caught:
        placed(devices=devices)
    assert f"unset {next(iter(variables))}" in str(caught.value)


def test_a_world_size_alone_and_lightnings_own_ranks_are_well(started):
    started(WORLD_SIZE=4, RANK=0)
    assert placed().processes == 1
    started(LOCAL_RANK=1, NODE_RANK=0, WORLD_SIZE=2)
    assert placed(devices="2").processes == 2
