"""What a device is made for, and how values get there."""

from __future__ import annotations

import torch
from torch import Tensor

from retfiner.common.errors import InputError


def resolve_precision(requested: str, accelerator: str) -> str:
    """Choose the arithmetic: bfloat16 where the device is made for it.

    Args:
        requested: ``auto`` or what Lightning calls a precision.
        accelerator: ``cpu``, ``cuda`` or ``mps``, as resolved.

    Returns:
        What Lightning calls a precision. ``auto`` is bfloat16 on a GPU or CPU with bfloat16 matrix
        units, else float16 on a GPU, else float32.
    """
    if requested != "auto":
        return requested
    if is_made_for_bfloat16(accelerator):
        return "bf16-mixed"
    return "16-mixed" if accelerator == "cuda" else "32-true"


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy values that were made on the CPU to a device, without waiting for it.

    Args:
        values: A CPU tensor.
        device: Where it is needed.
    """
    if device.type == "cuda":
        # Copied from ordinary memory, more than 64 KiB may wait for all work queued before them.
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def is_made_for_bfloat16(accelerator: str) -> bool:
    """Say whether a device computes bfloat16 products in hardware.

    Emulation does not count: a CPU without the units takes a hundred times as long as in float32,
    an older GPU longer than in float16.

    Args:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
    """
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(False)
    if accelerator != "cpu":
        return False
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def resolve_device(name: str) -> torch.device:
    """Find the device to compute on.

    Args:
        name: What torch calls it, or ``auto``: a GPU where there is one.

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
