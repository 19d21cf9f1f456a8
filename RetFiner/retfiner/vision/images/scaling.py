"""From stored values to gray values in [0, 1]: by what their type, or its bits in use, can hold.

Never by an image's own maximum, so that a dark B-scan stays dark.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.vision.images.image_file import GrayImage, unusable

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601, as Pillow has them."""

ROUNDING = 1e-6
"""How far beyond [0, 1] a float may be and still be one that was rounded: 8 steps of float32."""


def from_array(values: NDArray[Any], path: Path, bits: int | None = None) -> GrayImage:
    """Scale an array by its type; colour becomes luma, an alpha channel is dropped.

    Args:
        values: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): 8- or 16-bit unsigned integers of either
            byte order, booleans, or floats in [0, 1].
        path: Where it comes from, for the message.
        bits: How many bits of 16 the values use, where that is known.

    Raises:
        InputError: If the type is another one, a float is not in [0, 1], or a value needs more
            bits.
    """
    require_dtype(values.dtype, path)
    if values.dtype.kind == "u":
        scaled = unit_integers(values, 8 * values.dtype.itemsize, path, bits)
    elif values.dtype == np.bool_:
        scaled = values.astype(np.float32)
    else:
        scaled = unit_floats(values, path)
    return to_luma(scaled)


def require_dtype(dtype: np.dtype[Any], path: Path) -> None:
    """Refuse types whose range is not that of gray values.

    Raises:
        InputError: If it is none of unsigned integers of 8 or 16 bits, booleans and floats.
    """
    is_short = dtype.kind == "u" and dtype.itemsize <= 2
    if is_short or dtype.kind in "fb":
        return
    remedy = "scale them to [0, 1], or to uint8"
    if dtype.kind in "iu":
        remedy = "save values.astype('uint8') if they are from 0 to 255, or 'uint16' up to 65,535"
    raise unusable(path, f"dtype {dtype}", "uint8, uint16, bool or floats in [0, 1]", remedy)


def unit_integers(
    values: NDArray[Any], depth: int, path: Path, bits: int | None = None
) -> NDArray[np.float32]:
    """Scale integers of ``depth`` bits, or of the ``bits`` of 16 that they are known to use.

    Raises:
        InputError: If one is negative, or needs more bits.
    """
    used = bits if bits is not None and depth == 16 else depth
    if used != 8 * values.dtype.itemsize:
        require_used_bits(values, used, path)
    return values.astype(np.float32) / np.float32(2**used - 1)


def require_used_bits(values: NDArray[Any], used: int, path: Path) -> None:
    """Refuse integers that do not fit into the bits that they are said to use.

    Raises:
        InputError: If one is negative, or needs more bits.
    """
    low, high = values.min(), values.max()
    if low < 0 or high >= 2**used:
        raise unusable(
            path, f"values from {low:,} to {high:,}", f"0 to {2**used - 1:,}: {used} bits"
        )


def unit_floats(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Take floats as they are; one that was rounded to just beyond [0, 1] is 0 or 1.

    Raises:
        InputError: If one is not in [0, 1].
    """
    step = max(ROUNDING, 4 * float(np.finfo(values.dtype).eps))  # coarser with half precision
    low, high = values.min(), values.max()
    if not (low >= -step and high <= 1 + step):  # nor NaN
        remedy = "scale them by what is white in them, not by each image's own maximum"
        if not np.isfinite([low, high]).all():
            remedy = "replace what is no number: np.nan_to_num(values, nan=0, posinf=1, neginf=0)"
        elif low > -0.1 and high < 1.1:
            remedy = "save values.clip(0, 1)"
        elif low >= 0 and high <= 255:
            remedy = "divide by 255 if that is white, or save values.astype('uint8')"
        elif low >= 0 and high <= 65535:
            remedy = "divide by what is white, 65,535 for example, or save as uint16"
        found = f"floats from {low} to {high}"
        raise unusable(path, found, "floats in [0, 1], or 8- or 16-bit integers", remedy)
    return values.astype(np.float32).clip(0, 1)


def to_luma(scaled: NDArray[np.float32]) -> GrayImage:
    """Turn (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) into (H, W)."""
    if scaled.ndim == 2:
        return scaled
    if scaled.shape[-1] == 1:
        return scaled[..., 0]
    return scaled[..., :3] @ np.array(LUMA, dtype=np.float32)
