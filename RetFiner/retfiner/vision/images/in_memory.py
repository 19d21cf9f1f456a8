"""Images as Python users have them: files, arrays, pictures of Pillow."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.images.arrays import SHAPES, layout_of, plain_shape
from retfiner.vision.images.image_file import GrayImage
from retfiner.vision.images.raster import gray
from retfiner.vision.images.scaling import from_array

ImageLike = str | Path | ImageAddress | NDArray[Any] | Image.Image
"""A file (``scan.e2e#12`` for a B-scan of a volume), an array, or a picture of Pillow."""


def as_image_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """List one image or several; a stack of B-scans (N, H, W) becomes N images.

    Raises:
        InputError: If there is none.
    """
    if isinstance(images, np.ndarray):
        images = images.reshape(plain_shape(images.shape))
        layout = layout_of(images.shape)
        if layout is None:
            raise InputError("An array cannot be an image", got=images.shape, expected=SHAPES)
        listed: list[ImageLike] = list(images) if layout.is_stack else [images]
    elif isinstance(images, str | Path | ImageAddress | Image.Image):
        listed = [images]
    else:
        listed = list(images)
    if not listed:
        raise InputError("There is no image", got="an empty list", expected="at least one image")
    return listed


def to_grayscale(image: ImageLike) -> GrayImage:
    """Read an image as training does: scaled by its type or bit depth, colour as luma.

    Args:
        image: A file; an array (H, W), (H, W, 3) or (H, W, 4) of 8- or 16-bit unsigned integers or
            of floats in [0, 1]; or a picture of Pillow.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        InputError: If it cannot be read, or its values mean nothing we know.
    """
    if isinstance(image, np.ndarray):
        image = image.reshape(plain_shape(image.shape))
        layout = layout_of(image.shape)
        if layout is None or layout.is_stack:
            raise InputError(
                "An array is not one image",
                got=image.shape,
                expected="(H, W), (H, W, 3) or (H, W, 4)",
            )
        return from_array(image, Path("given as an array"))
    if isinstance(image, Image.Image):
        return gray(image, Path("given as a picture"))
    if isinstance(image, str | Path | ImageAddress):
        return read_image(image)
    raise InputError(
        "An image cannot be of this type",
        got=type(image).__name__,
        expected="a path, an array of NumPy or a picture of Pillow",
    )
