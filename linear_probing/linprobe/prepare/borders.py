"""White borders that rotation left in published B-scans (Kermany, Srinivasan) become black.

Scans were turned until the retina lay flat, and the corners and edges that this uncovered were
filled with white before the JPEG was written. Black is what lies beyond a scan elsewhere, and what
rotation in training fills with.

Of 161 of Kermany's B-scans, 112 have borders, from frames one pixel wide to a third of the scan; of
the edges' white pixels, which are hundreds a scan, at most 28 remain (short tips beyond a gap). The
limit: a layer without a gap below :data:`WHITE` that runs into a border is taken for a part of it;
in these scans that costs a few pixels at the edge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from linprobe.prepare.spec import GrayImage

WHITE = 240
"""A border's gray values; JPEG moves them a little away from 255, most where it is thin."""
MIN_CONTACT = 1 / 16
"""Shortest unbroken run of an image's edge that a border covers, as a share of that edge.

Frames of a single column occur, so that an area says little; bright layers that are cut off at an
edge cover less of it.
"""
MIN_MEAN = 252.0
"""A border is white throughout; bright tissue above :data:`WHITE` is less so."""
RIM_WHITE, RIM_WIDTH = 128, 3
"""JPEG blurs a border's inner side: so many pixels further in, it is what is at least so bright."""

_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def find_white_borders(image: GrayImage) -> NDArray[np.bool_]:
    """Find white borders of an (H, W) image: (H, W), true where one is.

    The pixels of at least :data:`WHITE` fall into connected regions (corners count). A region is a
    border if it covers an unbroken run of at least :data:`MIN_CONTACT` of one edge of the image and
    is on average at least :data:`MIN_MEAN`. Only then is it grown by its blurred rim.
    """
    regions, _ = ndimage.label(image >= WHITE, _NEIGHBOURS)
    chosen = [
        region
        for region in _with_long_contact(regions)
        if image[regions == region].mean() >= MIN_MEAN
    ]
    found = np.isin(regions, chosen)
    if not chosen:
        return found
    rim = image >= RIM_WHITE
    return ndimage.binary_dilation(found, _NEIGHBOURS, iterations=RIM_WIDTH, mask=rim) | found


def zero_white_borders(image: GrayImage) -> tuple[GrayImage, float]:
    """Give an (H, W) image with white borders set to 0, and their share of it."""
    borders = find_white_borders(image)
    share = float(borders.mean())
    return (np.where(borders, np.uint8(0), image) if share else image), share


def _with_long_contact(regions: NDArray[np.int32]) -> list[int]:
    """Number the regions that cover enough neighbouring pixels of an edge."""
    found: set[int] = set()
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        starts = np.flatnonzero(np.diff(edge, prepend=-1))
        lengths = np.diff(starts, append=len(edge))
        found |= set(edge[starts[lengths >= MIN_CONTACT * len(edge)]].tolist())
    return sorted(found - {0})
