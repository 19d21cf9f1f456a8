"""Which arithmetic a device is made for."""

from __future__ import annotations

import torch


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
