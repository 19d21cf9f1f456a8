"""Several processes that train one model: what they say to each other.

Losses are those of the batch of all processes together. Rows that other processes hold are gathered
with their gradients, each process returns its share of the loss, and the average of gradients that
data-parallel training takes is the gradient of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for one that lives but does not answer: while a checkpoint is written to
a slow disk, or images come late. One that has died is noticed at once."""


def world_size() -> int:
    """Count the processes of this run; 1 before they have met."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def all_gather_objects(value: T) -> list[T]:
    """Give a value to all processes, and return theirs in the order of ranks.

    It goes through main memory: nothing waits for a GPU.

    Raises:
        RuntimeError: If another process has ended.
    """
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    try:
        dist.all_gather_object(gathered, value, group=_cpu_group())
    except RuntimeError as error:
        raise RuntimeError(
            "another process of this run has ended or does not answer; what it said says why"
        ) from error
    return gathered


def all_gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Gather the rows of all processes; gradients of each go back to where it came from.

    Args:
        rows: (B, ...) this process's rows.
        sizes: How many rows each process has.

    Returns:
        (W, ...) rows of all, in the order of ranks.
    """
    most = max(sizes)
    padding = (0, 0) * (rows.dim() - 1) + (0, most - len(rows))
    parts = _Gather.apply(F.pad(rows, padding)).split(most)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """Gather tensors of one shape along their first dimension; backward, gradients are added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        parts = [part.contiguous() for part in gradient.chunk(world_size())]
        own = torch.empty_like(parts[0])
        dist.reduce_scatter(own, parts)
        return own


@torch.no_grad()
def all_reduce_mean(values: Tensor) -> Tensor:
    """Average a tensor over processes; all of them get the same bits.

    Args:
        values: Of any shape, the same in every process.
    """
    if world_size() == 1:
        return values
    mean = values.detach().clone()
    dist.all_reduce(mean)
    return mean / world_size()


def any_process(value: bool) -> Callable[[], bool]:
    """Ask whether any process says yes; all ask together and nothing waits.

    Returns:
        The answer, the same in all processes; it is waited for where it is called.
    """
    if world_size() == 1:
        return lambda: value
    flag = torch.tensor(int(value))
    asked = dist.all_reduce(flag, dist.ReduceOp.MAX, group=_cpu_group(), async_op=True)

    def answer() -> bool:
        asked.wait()
        return bool(flag)

    return answer


@torch.no_grad()
def broadcast_parameters(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers; they travel through main memory.

    Args:
        module: The same module in every process, on the CPU.
    """
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0, group=_cpu_group())


@cache
def _cpu_group() -> Any:
    """Return the group that talks through main memory; where GPUs talk by NCCL, one of its own."""
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    return dist.new_group(backend="gloo", timeout=TIMEOUT)
