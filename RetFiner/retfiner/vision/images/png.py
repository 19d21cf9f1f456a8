"""What a PNG says of its depth, which Pillow passes over: the chunk ``sBIT``."""

import struct
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 1000
"""More than this before the pixels is a sign of damage."""


def significant_bits(source: Path | IO[bytes]) -> int | None:
    """Return how many bits of a gray image's values are significant, if the file says so."""
    with source.open("rb") if isinstance(source, Path) else source as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return None
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IDAT":
                return None
            (size,) = struct.unpack(">I", head[:4])
            if head[4:] == b"sBIT":
                return file.read(1)[0] if size in (1, 2) else None  # colour has three or four
            file.seek(size + 4, 1)
    return None


def used_bits(values: NDArray[np.uint16], significant: int) -> int:
    """Tell by which of two conventions significant bits are stored; return the bits to scale by.

    The standard wants them at the upper end, the values as if of 16 bits. Many writers leave them
    at the lower end. Values that all fit there, and are not all multiples as at the upper end, are.
    """
    is_low = values.max() < 2**significant
    is_scaled = not (values & (2 ** (16 - significant) - 1)).any()
    return significant if is_low and not is_scaled else 16
