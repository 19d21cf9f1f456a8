"""From stored values to gray values in [0, 1], and how large an image may be.

Values are scaled by what their type can hold, never by the image's own maximum, so that a dark
B-scan stays dark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.vision.images.errors import unusable

GrayImage = NDArray[np.float32]
"""(H, W) in [0, 1]."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601, as Pillow has them."""

MAX_IMAGE_PIXELS = 178_956_970
"""Most pixels of one image, twice 89,478,485: where Pillow, too, calls a file a bomb."""

MAX_VOLUME_PIXELS = 2**32
"""Most pixels a file may claim for all its B-scans; wide-field volumes have 1.6 thousand million.

B-scans are read one by one, so this bounds what a damaged header can make us believe, not memory.
"""


def require_size(path: Path, count: int, height: int, width: int) -> None:
    """Refuse sizes that no OCT scan has, before memory is taken for them.

    Raises:
        InputError: If a size is not positive or the whole is too large.
    """
    if min(count, height, width) < 1:
        raise unusable(path, f"{count} images of {height} x {width} pixels", "at least one pixel")
    if height * width > MAX_IMAGE_PIXELS or count * height * width > MAX_VOLUME_PIXELS:
        raise unusable(
            path,
            f"{count} images of {height} x {width} pixels by its header",
            f"at most {MAX_IMAGE_PIXELS:,} pixels an image and {MAX_VOLUME_PIXELS:,} a file",
        )


def from_array(values: NDArray[Any], path: Path) -> GrayImage:
    """Scale an array by its type; colour becomes luma, an alpha channel is dropped.

    Args:
        values: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): 8- or 16-bit unsigned integers of either
            byte order, booleans, or floats in [0, 1].
        path: Where it comes from, for the message.

    Raises:
        InputError: If the type is another one, or a float is not in [0, 1].
    """
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        scaled = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    elif values.dtype == np.bool_:
        scaled = values.astype(np.float32)
    elif np.issubdtype(values.dtype, np.floating):
        scaled = unit_floats(values, path)
    else:
        raise unusable(path, f"dtype {values.dtype}", "uint8, uint16, bool or floats in [0, 1]")
    return to_luma(scaled)


def unit_floats(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Take floats as they are.

    Raises:
        InputError: If one is not in [0, 1].
    """
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        found = f"floats from {values.min()} to {values.max()}"
        raise unusable(path, found, "floats in [0, 1], or 8- or 16-bit integers")
    return values.astype(np.float32)


def to_luma(scaled: NDArray[np.float32]) -> GrayImage:
    """Turn (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) into (H, W)."""
    if scaled.ndim == 2:
        return scaled
    if scaled.shape[-1] == 1:
        return scaled[..., 0]
    gray: GrayImage = scaled[..., :3] @ np.array(LUMA, dtype=np.float32)
    return gray
