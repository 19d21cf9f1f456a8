"""What a device is made for, and how values get there."""

from __future__ import annotations

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
