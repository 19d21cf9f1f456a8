"""A dozen pairs to look at: small pictures with their reports."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from retfiner.common.errors import InputError
from retfiner.data.check.rows import Row
from retfiner.vision import read_image

NUMBER = 12
SIDE = 288
"""Longer side of a picture in pixels."""
QUALITY = 82
"""Of JPEG; a picture takes about 10 kB."""


class Sample(NamedTuple):
    """A pair to look at.

    Attributes:
        row: The pair.
        jpeg: Its picture, as base64; empty where the image cannot be decoded.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
    """

    row: Row
    jpeg: str
    width: int
    height: int


def choose(rows: Sequence[Row], generator: np.random.Generator) -> list[Row]:
    """Choose pairs at random, of different patients and with different reports where possible.

    Args:
        rows: Pairs that may be shown.
        generator: Where the random numbers come from.

    Returns:
        At most :data:`NUMBER` pairs, in the order of the table.
    """
    order = generator.permutation(len(rows)).tolist()
    patients: set[str | None] = set()
    reports: set[str] = set()
    fresh: list[int] = []
    others: list[int] = []
    for index in order:
        row = rows[index]
        known = (row.patient is not None and row.patient in patients) or row.report in reports
        (others if known else fresh).append(index)
        patients.add(row.patient)
        reports.add(row.report)
    return [rows[index] for index in sorted((fresh + others)[:NUMBER])]


def make_sample(row: Row) -> Sample:
    """Read a pair's image and make its picture.

    Args:
        row: The pair.
    """
    try:
        values = read_image(row.image)
    except InputError:  # not found out before where images were not decoded; the page says so
        return Sample(row, "", 0, 0)
    image = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    height, width = image.shape[-2:]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
    picture = Image.fromarray((small.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Sample(row, encoded, size[1], size[0])
