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


DISC = 0.8
"""Share of the disc that must be bright, and of what the disc leaves of its square, dark."""
CORNERS = 0.03
"""Share that this rest must have: a disc cut off on all sides shows no border to know it by."""


def shows_fundus(picture: NDArray[np.uint8]) -> bool:
    """Say whether a colour picture, (H, W, 3), shows a fundus: a disc in red tones on black.

    What is bright is framed; a circle as wide as the frame, or as high if that is more, must be
    bright within and dark without, and its mean colour more red than green and more green than
    blue. Photographs without a dark border, those of wide-field lasers in false colours, and maps
    in colours are left undecided.
    """
    bright = picture.max(axis=2) > DARK * 255
    rows = np.flatnonzero(bright.mean(axis=1) > LEAST)
    columns = np.flatnonzero(bright.mean(axis=0) > LEAST)
    if not rows.size or not columns.size:
        return False
    frame = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    bright, colours = bright[frame], picture[frame]
    height, width = bright.shape
    y, x = np.ogrid[:height, :width]
    from_centre = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    inside = from_centre <= max(height, width) / 2
    if (~inside).mean() < CORNERS or bright[inside].mean() < DISC:
        return False
    red, green, blue = colours[inside & bright].mean(axis=0)
    return bool(bright[~inside].mean() < 1 - DISC and red > 1.1 * green and green > blue)


VIVID, MARKED = 100, 5e-4
"""Difference of channels that a JPEG of a gray picture never has, and the share of pixels with it
from which they are a line or an arrow: a line across a B-scan is 0.2 %."""


def is_coloured(rgb: NDArray[np.uint8]) -> bool:
    """Say whether (H, W, 3) values of 8 bits are a colour picture, not gray ones stored as one."""
    return has_colours(rgb[::8, ::8])


def has_coloured_marks(rgb: NDArray[np.uint8]) -> bool:
    """Say whether some pixels of (H, W, 3) values of 8 bits are in colours that no camera gives."""
    return bool((np.ptp(rgb, axis=-1) > VIVID).mean() > MARKED)


def has_colours(few: NDArray[np.uint8]) -> bool:
    """Say the same of a few pixels of it, (..., 3)."""
    return bool(np.ptp(few.astype(np.int16), axis=-1).mean() > 12)
