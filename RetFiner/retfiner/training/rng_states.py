"""The states of all random number generators that a step may draw from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def collect_rng_states(device: torch.device) -> dict[str, Any]:
    """Return them as plain data, which a safe checkpoint can hold."""
    numpy = dict(np.random.get_state(legacy=False))
    keys = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": numpy | {"state": {"key": keys, "pos": int(numpy["state"]["pos"])}},
        "python": random.getstate(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_rng_states(states: dict[str, Any], device: torch.device) -> None:
    """Go on from states that :func:`collect_rng_states` returned.

    A state of another kind of device is left alone: numbers differ between devices anyway.
    """
    torch.set_rng_state(states["torch"])
    numpy = states["numpy"]
    key = numpy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy | {"state": {"key": key, "pos": numpy["state"]["pos"]}})
    version, internal, following = states["python"]
    random.setstate((version, tuple(internal), following))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
