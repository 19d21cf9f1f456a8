"""Whether two runs ended at the same numbers, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

OWN = {
    "retfiner", "dirpath", "best_model_path", "kth_best_model_path", "last_model_path",
    "validate_loop",
}  # fmt: skip
"""What differs between any two runs: who they are, where they lie, and the counters of the
validation before training, which a run's first process makes alone."""
UNUSED = {"loops", "PairsDataModule"}
"""Counters that best-model.ckpt has from Lightning; nothing goes on from it."""


def assert_same_run(one: Path, two: Path) -> None:
    """All tensors, counters and random states of both checkpoints agree, and all logged rows."""
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()
    for name in ("best-model.ckpt", "last.ckpt"):
        raw = [torch.load(folder / name, weights_only=True) for folder in (one, two)]
        if name == "best-model.ckpt":
            raw = [{k: v for k, v in content.items() if k not in UNUSED} for content in raw]
        found = [dict(leaves(content)) for content in raw]
        assert not set(found[0]) ^ set(found[1])
        differing = [place for place in found[0] if not same(*(f[place] for f in found))]
        assert not differing, (name, differing[:8])
    assert curves(one) == curves(two)


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through a checkpoint to its tensors and numbers."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = "*" if place.endswith("/best_k_models") else key  # keyed by path
            if key not in OWN:
                yield from leaves(item, f"{place}/{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{place}/{index}")
    else:
        yield place, value


def same(one: Any, two: Any) -> bool:
    return torch.equal(one, two) if isinstance(one, Tensor) else one == two


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: each curve's steps and values."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
