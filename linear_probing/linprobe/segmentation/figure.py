"""A figure of examples: the image, the truth, and what each model found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from linprobe.datasets import read_bscan
from linprobe.report.style import COLOURS, STYLE, shorten_name
from linprobe.segmentation.masks import Labels

PANEL = 2.3
OPACITY = 0.55


@dataclass(frozen=True)
class Example:
    """A test image: its file, its mask, and what each model found."""

    path: Path
    truth: Labels
    found: dict[str, Labels]


def draw_examples(examples: list[Example], classes: list[str], output: Path) -> None:
    """Draw a row an example and write it as PNG."""
    titles = ["", "truth", *examples[0].found]
    with rc_context(STYLE):
        size = PANEL * len(titles), PANEL * 0.8 * len(examples) + 0.5
        figure = Figure(figsize=size)
        axes = figure.subplots(len(examples), len(titles), squeeze=False)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title)
        for row, example in zip(axes, examples, strict=True):
            image = np.atleast_3d(read_bscan(example.path))[..., :3].mean(-1)
            panels = [np.zeros_like(example.truth), example.truth, *example.found.values()]
            for ax, mask in zip(row, panels, strict=True):
                ax.imshow(overlaid(image, mask), aspect="auto", interpolation="nearest")
                ax.set_axis_off()
        patches = [
            Patch(color=COLOURS[k % len(COLOURS)], label=shorten_name(name, 30))
            for k, name in enumerate(classes[1:])
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(output, dpi=150)


def overlaid(image: np.ndarray, mask: Labels) -> np.ndarray:
    """Colour the classes of a mask over (H, W) in [0, 1]: (H, W, 3); the background stays gray."""
    gray = np.repeat(image[..., None], 3, axis=2).astype(np.float32)
    colours = np.array([to_rgb(colour) for colour in COLOURS], dtype=np.float32)
    there = mask > 0
    own = colours[(mask[there] - 1) % len(COLOURS)]
    gray[there] = (1 - OPACITY) * gray[there] + OPACITY * own
    return gray.clip(0, 1)
