"""HTML pages that need no network: jinja2 templates, into which everything goes escaped."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

SHARED = Path(__file__).parent / "templates"
"""Holds ``page.html``, which every page extends."""

Pixels = NDArray[np.uint8]


@cache
def get_template(path: Path) -> Template:
    """Load a template; one it extends is looked for beside it and among the shared ones."""
    environment = Environment(
        loader=FileSystemLoader([path.parent, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(path.name)


def as_8bit(image: NDArray[np.floating[Any]]) -> Pixels:
    """Turn gray values in [0, 1] into 8 bits."""
    return (image * 255).round().astype(np.uint8)


def data_uri(pixels: Pixels, width: int | None = None) -> str:
    """Put a picture, (H, W) gray or (H, W, 4) colour with opacity, into the page itself.

    With a width it becomes a JPEG thumbnail, else a PNG of the pixels as they are.
    """
    image, stream = Image.fromarray(pixels), io.BytesIO()
    if width is None:
        image.save(stream, "PNG", optimize=True)
    else:
        height = max(1, round(image.height * width / image.width))
        image.resize((width, height)).save(stream, "JPEG", quality=85)
    kind = "png" if width is None else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode("ascii")
