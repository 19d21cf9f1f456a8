"""What AdamW is told: groups of parameters, and the course of the learning rate."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from retfiner.model import RetFiner
from retfiner.training.adaptation import is_new_text
from retfiner.vision.adaptation import vision_groups

LrSchedule = Literal["constant", "cosine"]


def parameter_groups(
    model: RetFiner,
    lr: float,
    vision_lr: float | None = None,
    text_lr: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Group what trains by learning rate and weight decay.

    Args:
        model: The model.
        lr: Learning rate of what is new: heads, projections, cross-attention, low-rank updates.
        vision_lr: That of the pretrained vision encoder's own weights; by default ``lr``.
        text_lr: That of the pretrained text encoder's own weights; by default ``lr``.
        layer_decay: Learning rate of each vision block as a share of the next one's.

    Returns:
        Groups with a ``name``: ``new``, ``temperature``, ``text`` and ``vision``.
    """
    rates = {
        "new": lr,
        "temperature": lr,
        "text": lr if text_lr is None else text_lr,
        "vision": lr if vision_lr is None else vision_lr,
    }
    groups: dict[str, list[Tensor]] = {name: [] for name in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_group_of(name)].append(parameter)
    if layer_decay != 1:
        del groups["vision"]
    found: list[dict[str, Any]] = [
        {"name": name, "params": members, "lr": rates[name]}
        for name, members in groups.items()
        if members
    ]
    for group in found:
        if group["name"] == "temperature":
            group["weight_decay"] = 0.0  # decay would pull it to 0 whatever the data say
    if layer_decay != 1:
        layers = vision_groups(model.vision_encoder, rates["vision"], layer_decay)
        found += [group | {"name": f"vision_{k}"} for k, group in enumerate(layers)]
    return found


def _group_of(name: str) -> str:
    """Say which group a parameter of the model is in."""
    if name in ("contra_temp", "contra_bias"):
        return "temperature"
    if name.startswith("vision_encoder.") and ".lora_" not in name:
        return "vision"
    if name.startswith("multimodal_encoder.") and not is_new_text(name):
        return "text"
    return "new"


def lr_factor(step: int, total: int, schedule: LrSchedule, warmup_steps: int) -> float:
    """Return the share of the learning rate at an optimiser step.

    Args:
        step: Optimiser steps done.
        total: Optimiser steps of the whole run.
        schedule: Its course after warm-up.
        warmup_steps: Optimiser steps of linear warm-up, the first of which is no standstill.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
