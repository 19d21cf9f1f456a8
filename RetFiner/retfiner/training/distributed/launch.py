"""On which devices a run trains, and which of its processes this is.

A process a device: started by torchrun or SLURM, or by Lightning, which starts this script again.
Each reads and builds the same; the first alone writes and prints.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy

from retfiner.common.errors import InputError
from retfiner.training.distributed.collectives import TIMEOUT
from retfiner.training.distributed.fsdp import ShardedStrategy
from retfiner.training.precision import resolve_precision

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK")
"""Variables by which launchers tell a process which one it is."""


@dataclass(frozen=True)
class Hardware:
    """The devices of a run.

    Attributes:
        accelerator: ``cuda``, ``mps``, ``cpu`` or what else Lightning knows.
        devices: Devices of each machine.
        nodes: Machines.
        strategy: ``auto`` for a single device, else ``ddp`` or ``fsdp``.
        precision: Arithmetic, as Lightning names it.
    """

    accelerator: str
    devices: int
    nodes: int
    strategy: str
    precision: str

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


def resolve_hardware(
    accelerator: str = "auto",
    devices: str = "auto",
    num_nodes: int | None = None,
    strategy: str = "auto",
    *,
    batch_size: int | None = None,
    precision: str = "auto",
    prefers_float16: bool = False,
    compile: bool = False,
) -> Hardware:
    """Decide where a run trains.

    Args:
        accelerator: Device as Lightning names it.
        devices: Devices of each machine: a number, ``all`` or ``auto``.
        num_nodes: Machines; by default one, or as torchrun started.
        strategy: ``auto``, ``ddp`` or ``fsdp``.
        batch_size: Pairs in a batch of one device, if the user said how many.
        precision: As asked for; float16 does not go with split weights.
        prefers_float16: Whether ``auto`` is float16 on a GPU: the published arithmetic.
        compile: Whether the encoders are compiled, which does not either.

    Raises:
        InputError: If there are no such devices, torchrun or SLURM started another number of
            processes, a variable says wrongly which process this is, or weights cannot be split as
            asked.
    """
    accelerator = _resolve_accelerator(accelerator)
    if precision == "auto" and prefers_float16 and accelerator == "cuda":
        precision = "16-mixed"
    count = _count_devices(devices, accelerator)
    precision = resolve_precision(precision, accelerator)
    started = _started_by_torchrun()
    nodes = num_nodes or (1 if started is None else started[1])
    if started is not None and started != (count, nodes):
        raise InputError(
            "--devices and --num_nodes cannot be used as asked",
            got=f"{count} on each of {nodes} for {started[0]} on each of {started[1]} that "
            "torchrun started",
            remedy="leave both out: torchrun's numbers are taken",
        )
    if started is None:
        _check_slurm(count * nodes)
        _check_ranks(count * nodes)
    if strategy == "auto" and count * nodes > 1:
        strategy = "ddp"
    if count * nodes > 1 and batch_size == 1:
        raise InputError(
            "a batch of one for each device is too small",
            got=f"--batch_size {batch_size} with {count * nodes} devices",
            expected="at least 2 a device",
        )
    if strategy == "fsdp":
        _check_sharding(precision, compile, count * nodes)
    return Hardware(accelerator, count, nodes, strategy, precision)


def _check_slurm(processes: int) -> None:
    """Refuse another number of SLURM's tasks than of devices: each task is a process of the run."""
    if not SLURMEnvironment.detect():
        return
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks != processes:
        remedy = "#SBATCH --ntasks-per-node as many as --devices, started by srun (srun "
        remedy += f"--ntasks={processes} python train.py ...)"
        if tasks == 1:  # then Lightning starts the others
            remedy += "; or, without SLURM's part in it: env -u SLURM_NTASKS python train.py ..."
        else:
            remedy += f"; or --devices times --num_nodes {tasks}"
        raise InputError(
            "SLURM's tasks and the devices asked for are not the same number",
            got=f"SLURM_NTASKS={tasks}, and --devices times --num_nodes is {processes}",
            expected="a task for each device: a task is one process of the run",
            remedy=remedy,
        )


def _check_ranks(processes: int) -> None:
    """Refuse variables that say which process this is where no launcher set them."""
    here = os.environ
    if processes == 1:
        stale = [name for name in RANKS if here.get(name, "0") != "0"]
    else:  # Lightning gives its processes the other two; this one it would believe
        stale = [n for n in RANKS[:1] if n in here and here[n] != here.get("SLURM_PROCID")]
    if stale:
        raise InputError(
            "the environment says that this is a process of another run",
            got=", ".join(f"{name}={here[name]}" for name in stale),
            expected="none of these, unless torchrun sets it",
            remedy=f"unset {' '.join(stale)}",
        )


def _check_sharding(precision: str, compile: bool, processes: int) -> None:
    """Refuse what weights that are split over devices do not go with."""
    if processes < 2:
        raise InputError(
            "there is nothing to split the weights over",
            got="--strategy fsdp with one device",
            expected="several devices",
            remedy="--devices 2 or more (or torchrun), or leave --strategy out",
        )
    if compile:
        raise InputError(
            "--compile and --strategy fsdp do not go together",
            got="both",
            expected="one of the two: compiled encoders do not gather the weights of each layer",
            remedy="leave --compile out, or --strategy ddp",
        )
    if precision == "16-mixed":
        raise InputError(
            "float16 and --strategy fsdp do not go together",
            got=f"--precision {precision}",
            expected="bf16-mixed or 32-true: float16 scales its loss by whether any gradient is "
            "infinite, and each device sees a share of them",
            remedy="--precision bf16-mixed or 32-true, or --strategy ddp",
        )


def is_rank_zero() -> bool:
    """Say whether this process writes and prints; known before processes have met."""
    here = os.environ
    if "RANK" in here:  # torchrun
        return here["RANK"] == "0"
    if "LOCAL_RANK" in here or "NODE_RANK" in here:  # Lightning, on each machine
        return here.get("LOCAL_RANK", "0") == "0" and here.get("NODE_RANK", "0") == "0"
    return here.get("SLURM_PROCID", "0") == "0"


def rank_zero_print(text: str) -> None:
    """Print, in the first of a run's processes."""
    if is_rank_zero():
        print(text)


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
