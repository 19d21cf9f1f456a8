"""Colour fundus photographs: the disc that the camera sees, without the black around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DARK = 0.06
"""Brightest channel of the black around the disc, with the noise of a JPEG."""
LEAST = 0.05
"""Share of a row, or column, that must be brighter for the disc to reach it: a label does not."""


def crop_to_disc(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut a photograph, (H, W, 3) or (H, W), to its disc and pad it to a square with black.

    A disc that the sensor cuts off above and below stays round that way. An image without any dark
    border, or all dark, is only padded.
    """
    bright = (image if image.ndim == 2 else image.max(axis=2)) > DARK
    rows = np.flatnonzero(bright.mean(axis=1) > LEAST)
    columns = np.flatnonzero(bright.mean(axis=0) > LEAST)
    if rows.size and columns.size:
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = image.shape[:2]
    side = max(height, width)
    above, before = (side - height) // 2, (side - width) // 2
    margins = [(above, side - height - above), (before, side - width - before)]
    return np.pad(image, [*margins, (0, 0)][: image.ndim])


def is_coloured(rgb: NDArray[np.uint8]) -> bool:
    """Say whether (H, W, 3) values of 8 bits are a colour picture, not gray ones stored as one."""
    few = rgb[::8, ::8].astype(np.int16)
    return bool(np.ptp(few, axis=2).mean() > 12)
