"""The explanation as a picture, maps as transparent colour over the gray B-scan: a panel a word."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from retfiner.common.files import whole_file
from retfiner.evaluation.pages import Pixels, as_8bit
from retfiner.explanation.explain import Array, Explanation

COLOURS = "inferno"
STRONGEST = 0.65
"""Opacity of the strongest patch: the B-scan stays visible below it."""
PANEL_INCHES = 2.1
MOST_COLUMNS = 6
DPI = 110


def write_figure(path: Path, explanation: Explanation, weighted: bool = True) -> None:
    """Draw the B-scan, its rollout, and the gradient-weighted or plain map of each word, as PNG."""
    # Here alone: the browse page colours maps and leaves nothing behind, not even a list of fonts.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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


def relative(maps: Array) -> Array:
    """Scale each map (..., g, g) to [0, 1] by its own maximum; an empty map stays empty."""
    highest = maps.max(axis=(-2, -1), keepdims=True)
    scaled: Array = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    return scaled


def strengths(maps: Array) -> Array:
    """Give the strength of each map (W, g, g), 1 for the strongest: its sum over the image."""
    sums = maps.sum(axis=(-2, -1))
    found: Array = sums / sums.max() if sums.max() > 0 else sums
    return found


def coloured(values: Array) -> Pixels:
    """Colour a map (g, g) in [0, 1]: (g, g, 4), the opacity rising with the value's square."""
    rgba = mpl.colormaps[COLOURS](0.25 + 0.75 * values)
    rgba[..., 3] = STRONGEST * values**2
    return as_8bit(rgba)


def enlarged(values: Array, size: tuple[int, int]) -> Array:
    """Enlarge a map (g, g) to (H, W) pixels, bilinear between the centres of patches."""
    image = Image.fromarray(values.astype(np.float32))
    big: Array = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return big


def summarise(explanation: Explanation) -> str:
    """Say in a line how well image and report match, and which layer is shown."""
    return (
        f"Match by the model: {explanation.match:.2f} (not calibrated). "
        f"Cross-attention layer {explanation.layer}, "
        f"{explanation.rollout.shape[0]} x {explanation.rollout.shape[1]} patches."
    )
