"""The arithmetic of a run: which one, and mixed precision that converts each weight once a step."""

from __future__ import annotations

import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision


class CachingMixedPrecision(MixedPrecision):
    """Lightning's mixed precision with autocast's cache of converted weights left on.

    Lightning switches the cache off for the sake of modules that use a weight first without and
    then with gradients in one step; ours do not. A step runs the text encoder twice: without
    the cache each pass would convert the weights anew and keep a copy of its own for the backward
    pass. Where weights are split over devices and gathered for each pass it does the same, since
    they do not change within a step: half their size in each device's memory, while a step lasts.
    """

    def autocast_context_manager(self) -> torch.autocast:
        """Return the context in which a step computes."""
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.half
        return torch.autocast(self.device, dtype=dtype, cache_enabled=True)


def precision_plugin(precision: str, accelerator: str) -> Precision:
    """Give Lightning the arithmetic of a run.

    Args:
        precision: ``32-true`` (float32, with products of matrices in TF32 on a GPU that has it),
            ``bf16-mixed`` or ``16-mixed``.
        accelerator: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ValueError: If there is no such arithmetic.
    """
    if precision == "32-true":
        return Precision()
    if precision in ("bf16-mixed", "16-mixed"):
        device = accelerator if accelerator in {"cpu", "mps"} else "cuda"
        return CachingMixedPrecision(precision, device)
    raise ValueError(f"precision {precision!r} is not one of 32-true, bf16-mixed, 16-mixed")


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
