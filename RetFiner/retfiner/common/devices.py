"""What a device is made for, and how values get there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from retfiner.common.errors import InputError


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy values that were made on the CPU to a device, without waiting for it."""
    if device.type == "cuda":
        # Copied from ordinary memory, more than 64 KiB may wait for all work queued before them.
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def fetch(values: Tensor) -> Callable[[], Tensor]:
    """Copy values of a device to the CPU, to be read later than the work that is queued now.

    Returns:
        A function that waits for the copy, not for what was queued after it, and returns it.
    """
    if values.device.type != "cuda":
        return values.cpu
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    there.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def read() -> Tensor:
        copied.synchronize()
        return there

    return read


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that computes in the types of its tensors, also where precision is mixed."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def resolve_device(name: str) -> torch.device:
    """Find a device by torch's name for it, or ``auto``: a GPU where there is one.

    Raises:
        InputError: If there is no such device.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.append("mps")
    if torch.cuda.is_available():
        present.append("cuda")
    if name == "auto":
        return torch.device(present[-1])
    if name.partition(":")[0] not in present:
        raise InputError(
            "There is no such device", got=name, expected=f"auto, {', '.join(present)}"
        )
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError("There is no such device", got=name, expected="as in cuda:0") from error
