"""The explanation as a picture: one panel a word."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from retfiner.common.files import whole_file
from retfiner.explanation.explain import Explanation
from retfiner.explanation.overlay import (
    Array,
    coloured,
    enlarged,
    relative,
    strengths,
    summarise,
)

PANEL_INCHES = 2.1
MOST_COLUMNS = 6
DPI = 110


def write_figure(path: Path, explanation: Explanation, weighted: bool = True) -> None:
    """Draw the B-scan, its rollout, and the map of each word.

    Args:
        path: PNG to write.
        explanation: What to draw.
        weighted: The gradient-weighted maps; otherwise plain attention.
    """
    maps = explanation.weighted if weighted else explanation.attention
    titles = ["B-scan", "rollout", *(word.text for word in explanation.words)]
    overlays: list[Array | None] = [None, relative(explanation.rollout), *relative(maps)]
    weights = [1.0, 1.0, *strengths(maps).tolist()]
    columns = min(MOST_COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    height, width = explanation.image.shape
    panel = PANEL_INCHES * min(max(height / width, 0.4), 1.6)
    figure = Figure((columns * PANEL_INCHES, rows * (panel + 0.3) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, title, overlay, weight in zip(axes.flat, titles, overlays, weights, strict=False):
        _panel(axis, explanation.image, title, overlay, weight)
    kind = "gradient-weighted cross-attention" if weighted else "cross-attention"
    lines = textwrap.wrap(explanation.report, 24 * columns)
    note = (
        f"{summarise(explanation)} Maps: {kind}; each by its own maximum, pale titles: weak maps."
    )
    lines += textwrap.wrap(note, 24 * columns)
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": "RetFiner"})


def _panel(axis: Any, image: Array, title: str, overlay: Array | None, weight: float) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto")
    if overlay is not None:
        big = np.clip(enlarged(overlay, image.shape), 0, 1)
        axis.imshow(coloured(big), aspect="auto")
    shade = 0.62 * (1 - math.sqrt(weight))
    axis.set_title(textwrap.shorten(title, 24, placeholder="..."), fontsize=9, color=(shade,) * 3)
