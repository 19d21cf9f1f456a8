"""Mixed precision that converts each weight once a step."""

from __future__ import annotations

import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision


class CachingMixedPrecision(MixedPrecision):
    """Lightning's mixed precision with autocast's cache of converted weights left on.

    Lightning switches the cache off for the sake of modules that use a weight first without and
    then with gradients in one step; ours do not. A step runs the text encoder six times: without
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
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
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
