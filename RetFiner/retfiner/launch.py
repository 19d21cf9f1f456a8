"""On which devices a run trains, and which of its processes this is.

A process a device: started by torchrun or SLURM, or by Lightning, which starts this script again.
Each reads and builds the same; the first alone writes and prints.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy

from retfiner.common.devices import resolve_precision
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.distributed import TIMEOUT
from retfiner.sharded import ShardedStrategy


@dataclass(frozen=True)
class Placement:
    """The devices of a run.

    Attributes:
        accelerator: ``cuda``, ``mps``, ``cpu`` or what else Lightning knows.
        devices: Devices of each machine.
        nodes: Machines.
        strategy: ``auto`` for a single device, else ``ddp`` or ``fsdp``.
    """

    accelerator: str
    devices: int
    nodes: int
    strategy: str

    @property
    def processes(self) -> int:
        """Number of processes, one a device."""
        return self.devices * self.nodes

    def lightning_strategy(self) -> Strategy | str:
        """Make what Lightning calls a strategy."""
        backend = "gloo" if self.accelerator == "cpu" else None
        if self.strategy == "fsdp":
            return ShardedStrategy(timeout=TIMEOUT, process_group_backend=backend)
        if self.strategy == "ddp":
            return DDPStrategy(
                timeout=TIMEOUT,
                process_group_backend=backend,
                gradient_as_bucket_view=True,  # else gradients are held twice
            )
        return "auto"


def place(config: RefineConfig) -> Placement:
    """Decide where a run trains.

    Args:
        config: The settings.

    Raises:
        InputError: If there are no such devices, torchrun started another number of processes, or
            weights cannot be split as asked.
    """
    accelerator = _resolve_accelerator(config.accelerator)
    devices = _count_devices(config.devices, accelerator)
    started = _started_by_torchrun()
    nodes = config.num_nodes or (1 if started is None else started[1])
    if started is not None and started != (devices, nodes):
        raise InputError(
            "--devices and --num_nodes cannot be used as asked",
            got=f"{devices} on each of {nodes} for {started[0]} on each of {started[1]} that "
            "torchrun started",
            remedy="leave both out: torchrun's numbers are taken",
        )
    strategy = config.strategy
    if strategy == "auto" and devices * nodes > 1:
        strategy = "ddp"
    if devices * nodes > 1 and config.batch_size < 2:
        raise InputError(
            "a batch of one for each device is too small",
            got=f"--batch_size {config.batch_size} with {devices * nodes} devices",
            expected="at least 2 a device",
        )
    if strategy == "fsdp":
        _check_sharding(config, accelerator, devices * nodes)
    return Placement(accelerator, devices, nodes, strategy)


def _check_sharding(config: RefineConfig, accelerator: str, processes: int) -> None:
    """Refuse what weights that are split over devices do not go with."""
    if processes < 2:
        raise InputError(
            "there is nothing to split the weights over",
            got="--strategy fsdp with one device",
            expected="several devices",
            remedy="--devices 2 or more (or torchrun), or leave --strategy out",
        )
    if config.compile:
        raise InputError(
            "--compile and --strategy fsdp do not go together",
            got="both",
            expected="one of the two: compiled encoders do not gather the weights of each layer",
            remedy="leave --compile out, or --strategy ddp",
        )
    if resolve_precision(config.precision, accelerator) == "16-mixed":
        raise InputError(
            "float16 and --strategy fsdp do not go together",
            got=f"--precision {config.precision} on {accelerator}",
            expected="bf16-mixed or 32-true: float16 scales its loss by whether any gradient is "
            "infinite, and each device sees a share of them",
            remedy="--precision bf16-mixed or 32-true, or --strategy ddp",
        )


def is_first_process() -> bool:
    """Say whether this process writes and prints; known before processes have met."""
    here = os.environ
    if "RANK" in here:  # torchrun
        return here["RANK"] == "0"
    if "LOCAL_RANK" in here or "NODE_RANK" in here:  # Lightning, on each machine
        return here.get("LOCAL_RANK", "0") == "0" and here.get("NODE_RANK", "0") == "0"
    return here.get("SLURM_PROCID", "0") == "0"


def _started_by_torchrun() -> tuple[int, int] | None:
    """Return the processes on each machine and the machines that torchrun started."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    local, total = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    return local, total // local


def _resolve_accelerator(requested: str) -> str:
    if requested == "gpu":
        return "cuda" if torch.cuda.is_available() else "gpu"
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _count_devices(requested: str, accelerator: str) -> int:
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator)
    if requested == "auto":
        started = _started_by_torchrun()
        return 1 if started is None else started[0]
    if requested == "all" and there:
        return there
    if not (requested.isdecimal() and int(requested) > 0):
        raise InputError(
            "--devices cannot be used as asked",
            got=f"{requested} with --accelerator {accelerator}",
            expected="a number of devices, auto, or all for every GPU of the machine",
        )
    if there is not None and int(requested) > there:
        raise InputError(
            "--devices cannot be used as asked", got=requested, expected=f"at most {there}"
        )
    return int(requested)
