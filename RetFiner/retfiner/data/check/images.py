"""What the image files hold: read once each, by several processes, and summed up in a few numbers.

Two digests tell copies: that of a file's bytes, and that of its pixels, which is the same for one
B-scan exported twice, when dates or identifiers in the file's header differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.common.processes import in_processes
from retfiner.common.progress import track
from retfiner.vision.images import ImageAddress, Note, open_images, why_unusable
from retfiner.vision.images.perceptual import perceptual_hash
from retfiner.vision.images.raster import FORMATS

Decode = Literal["full", "header"]

CHUNK = 16
"""Images handed to a process at once."""


class Intensity(NamedTuple):
    """Gray values of an image, 0 to 1 of its file's range.

    ``saturated`` is the share of the pixels at the top of the range.
    """

    minimum: float
    maximum: float
    mean: float
    saturated: float


class ImageFacts(NamedTuple):
    """What is known of an image, or the reason why it cannot be used.

    ``sha256`` is of the file's bytes; of the address, where the image is one of a volume's.
    ``pixels`` is a digest of the decoded ones. ``looks`` are the 256 bits of
    a perceptual hash. ``notes`` say what may be meant otherwise. What was not looked at, or only
    decoding would tell, is None or empty.
    """

    reason: str | None
    sha256: str = ""
    pixels: str | None = None
    size: tuple[int, int] | None = None
    intensity: Intensity | None = None
    notes: tuple[Note, ...] = ()
    looks: bytes = b""

    @property
    def identity(self) -> str:
        """What two copies of an image share: pixels where known, and bytes otherwise.

        Images of one gray value are all alike without being copies, so that theirs is the bytes.
        """
        constant = self.intensity is not None and self.intensity.minimum == self.intensity.maximum
        return self.sha256 if self.pixels is None or constant else self.pixels


def read_images(
    images: Sequence[ImageAddress], decode: Decode, workers: int
) -> dict[ImageAddress, ImageFacts]:
    """Look at images, files or B-scans of volumes, each once.

    ``full`` decodes every pixel; ``header`` reads a file's bytes without decoding them. No workers
    is to read in this process.

    Raises:
        InputError: If a process dies, as when memory runs out.
    """
    unique = list(dict.fromkeys(images))
    look = partial(look_at, decode=decode)
    progress = partial(track, title="reading images", total=len(unique))
    if workers == 0:
        return dict(zip(unique, progress(map(look, unique)), strict=True))
    # Forked where that can be: a spawned process would import everything anew.
    facts = in_processes(
        look,
        unique,
        workers,
        remedy="fewer --num_workers need less memory; where a damaged file makes its decoder fall"
        " over, --decode header does not decode",
        start="fork",
        at_once=CHUNK,
    )
    return dict(zip(unique, progress(facts), strict=True))


def look_at(address: ImageAddress, decode: Decode) -> ImageFacts:
    """Look at one image, as :func:`read_images` does at all."""
    reason = why_unusable(address)
    if reason is not None:
        return ImageFacts(reason)
    try:
        digest = hashlib.sha256(str(address).encode()).hexdigest()
        if address.index is None and address.member is None:  # a volume's bytes are not one image's
            digest = file_sha256(address.path)
        file = open_images(address)
        if decode == "header":
            size = _size_in_header(address)
            return ImageFacts(None, digest, size=size, notes=tuple(file.notes))
        image = file.read(file.place(address.index))
    except InputError as error:
        return ImageFacts(error.in_one_line)
    except OSError as error:
        return ImageFacts(f"{address} cannot be read ({error.strerror})")
    height, width = image.shape[:2]
    pixels = hashlib.sha256(f"{height} x {width} ".encode())
    pixels.update(np.ascontiguousarray(image).data)
    intensity = Intensity(
        minimum=float(image.min()),
        maximum=float(image.max()),
        mean=float(image.mean(dtype=np.float64)),
        saturated=float((image >= 1).mean()),
    )
    notes = tuple(file.notes_on(image))
    looks = perceptual_hash(image).tobytes()
    return ImageFacts(None, digest, pixels.hexdigest(), (height, width), intensity, notes, looks)


def _size_in_header(address: ImageAddress) -> tuple[int, int] | None:
    try:
        with Image.open(address.path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # Pillow raises many kinds
        return None  # another format; only its reader would know
