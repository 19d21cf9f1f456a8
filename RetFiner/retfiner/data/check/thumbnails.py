"""A dozen pairs to look at: small pictures with their reports."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.data.check.input_table import Row
from retfiner.vision import read_image

NUMBER = 12
SIDE = 288
"""Longer side of a picture in pixels."""
QUALITY = 82
"""Of JPEG; a picture takes about 10 kB."""


class Thumbnail(NamedTuple):
    """A pair to look at.

    Attributes:
        row: The pair.
        jpeg: Its picture, as base64; empty where the image cannot be decoded.
        width: Width of the picture in pixels, and below its height.
    """

    row: Row
    jpeg: str = ""
    width: int = 0
    height: int = 0


def choose(rows: Sequence[Row], generator: np.random.Generator) -> list[Row]:
    """Choose at most a dozen pairs, of different patients and with different reports if possible.

    Args:
        rows: Pairs that may be shown; those that are chosen keep their order.
        generator: Where the random numbers come from.
    """
    patients: set[str | None] = set()
    reports: set[str] = set()
    fresh: list[int] = []
    others: list[int] = []
    for index in generator.permutation(len(rows)).tolist():
        row = rows[index]
        known = (row.patient is not None and row.patient in patients) or row.report in reports
        (others if known else fresh).append(index)
        patients.add(row.patient)
        reports.add(row.report)
    return [rows[index] for index in sorted((fresh + others)[:NUMBER])]


def make_thumbnail(row: Row) -> Thumbnail:
    """Read a pair's image and make its picture."""
    try:
        values = read_image(row.image)
    except InputError:  # not found out before where images were not decoded; the page says so
        return Thumbnail(row)
    picture = Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return Thumbnail(row, base64.b64encode(buffer.getvalue()).decode("ascii"), *picture.size)
