"""Maps as transparent colour over a gray B-scan."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfiner.evaluation.pages import Pixels, as_8bit
from retfiner.explanation.explain import Explanation

Array = NDArray[np.float32]

COLOURS = "inferno"
STRONGEST = 0.65
"""Opacity of the strongest patch: the B-scan stays visible below it."""


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
