"""What AdamW is told: groups of parameters, and the course of the learning rate."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from retfiner.model import RetFiner
from retfiner.training.adaptation import vision_groups

LrSchedule = Literal["constant", "cosine"]


def parameter_groups(model: RetFiner, lr: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Group what trains by learning rate and weight decay.

    Args:
        model: The model.
        lr: Learning rate.
        layer_decay: That of each vision block as a share of the next one's.
    """
    temperature: list[Tensor] = []
    others: list[Tensor] = []
    by_layer = layer_decay != 1
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or (by_layer and name.startswith("vision_encoder.")):
            continue
        (temperature if name == "contra_temp" else others).append(parameter)
    groups: list[dict[str, Any]] = [{"params": others}]
    if temperature:
        # Decay would pull the temperature to 0 whatever the data say.
        groups.append({"params": temperature, "weight_decay": 0.0})
    if by_layer:
        groups += vision_groups(model.vision_encoder, lr, layer_decay)
    return groups


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
