"""A small probing data set and model: real images, and a base model in RETFound's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from linprobe.config import ProbeConfig
from tests.helpers.refinement import write_base_model

COUNTS = {"train": 24, "val": 12, "test": 16}
CLASSES = ("AMD", "DME", "NORMAL")


def draw(label: int, rng: np.random.Generator, size: int = 40) -> np.ndarray:
    """Draw a noisy image with a bright band whose depth tells the class."""
    pixels = rng.normal(70, 25, (size, size))
    top = 4 + 12 * label + int(rng.integers(-2, 3))
    pixels[top : top + 6] += 90
    return pixels.clip(0, 255).astype(np.uint8)


def write_data_set(
    folder: Path,
    counts: Mapping[str, int] = COUNTS,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
) -> Path:
    """Write a data set whose classes can be learned; two images a patient."""
    rng = np.random.default_rng(seed)
    for order, (split, count) in enumerate(counts.items()):
        for index in range(count):
            label = index // 2 % len(classes)
            name = f"P{order}{index // 2:03d}_{'OD' if index % 2 else 'OS'}_v1.png"
            place = folder / split / classes[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(label, rng)).save(place / name)
    return folder


def small_probe(folder: Path, **changes: Any) -> ProbeConfig:
    """Write a data set and a base model where there are none, and give settings to probe them."""
    if not (folder / "data").exists():
        write_data_set(folder / "data" / "OCTID")
        write_base_model(folder / "base.pth")
    values: dict[str, Any] = {
        "init_weights": folder / "base.pth",
        "data_root": folder / "data",
        "results": folder / "results",
        "feature_store": folder / "features",
        "seed": [0, 1],
        "views": 4,
        "device": "cpu",
        "num_workers": 0,
        "inference_batch_size": 16,
    }
    return ProbeConfig(**(values | changes))
