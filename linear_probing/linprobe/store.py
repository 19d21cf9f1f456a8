"""Stored features, found by what went into them.

The key of a file is a hash of everything that decides its content (weights, image bytes,
transform, kind of feature), so that a stored file is never out of date: where anything differs,
so does the key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tokenize
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.common.files import whole_file
from retfiner.vision import Backbone

FORMAT = 2
"""Part of every key. Raise it whenever a change of code changes what features come out."""
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow")
"""Part of every key, with their versions: what decodes and encodes."""

_UNUSABLE = (OSError, ValueError, EOFError, TypeError, OverflowError, RecursionError, MemoryError,
             tokenize.TokenError)  # fmt: skip
"""What numpy raises for a file that is absent or no array."""

FloatArray = NDArray[np.floating[Any]]


def encoder_digest(backbone: Backbone) -> str:
    """Hash an encoder: every weight's name, kind, shape and bytes, and what it computes."""
    about = (backbone.spec.name, backbone.image_size, backbone.num_heads)
    digest = hashlib.sha256(repr(about).encode())
    for name, tensor in sorted(backbone.encoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"\0{name}\0{values.dtype}\0{values.shape}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def feature_key(
    encoder: str, method: str, transform: Any, stream: Sequence[int | str], images: Sequence[str]
) -> str:
    """Hash all that decides a table of features.

    Args:
        encoder: :func:`encoder_digest`.
        method: Kind of feature, one of ``retfiner.vision.METHODS``.
        transform: A dataclass that turns images into the encoder's input.
        stream: What its random numbers derive from; empty where nothing is random.
        images: SHA-256 of each image's bytes, in the order of the rows.
    """
    content = {
        "format": FORMAT,
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "encoder": encoder,
        "method": method,
        "transform": [type(transform).__name__, dataclasses.asdict(transform)],
        "stream": list(stream),
        "images": list(images),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def images_key(kind: str, images: Sequence[str]) -> str:
    """Hash what decides a table that depends on images alone; arguments as above."""
    return hashlib.sha256(json.dumps([FORMAT, kind, list(images)]).encode()).hexdigest()


class FeatureStore:
    """A folder of feature tables, which several processes may use at once."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Say where a table lies or will lie."""
        return self.folder / f"{key}.npy"

    def read(self, key: str, rows: int) -> FloatArray | None:
        """Read a table of so many rows, None where there is none that can be used."""
        # Mapped, so that a header that claims more than the file holds takes no memory.
        table = self._load(key)
        if table is None or table.ndim != 2 or len(table) != rows or table.dtype.kind != "f":
            return None
        return np.array(table, dtype=table.dtype.newbyteorder("="))

    def _load(self, key: str) -> NDArray[Any] | None:
        try:
            return np.asanyarray(np.load(self.path(key), mmap_mode="c", allow_pickle=False))
        except _UNUSABLE:
            return None  # absent, or damaged from outside: it is computed and written again

    def mapped(self, key: str, shape: tuple[int, int]) -> NDArray[np.float16] | None:
        """Map a table in half precision of this shape, without reading it; None if there is none.

        What is written to the array never reaches the file.
        """
        table = self._load(key)
        fits = table is not None and table.shape == shape and table.dtype == np.float16
        return table if fits else None

    def require(self, size: int) -> None:
        """Refuse to begin what the disk has no room for, in bytes.

        Raises:
            InputError: If it has not.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise self._full(f"{free / 1e9:.2g} GB free", f"{size / 1e9:.2g} GB")

    def write(self, key: str, table: FloatArray) -> None:
        """Write a table (N, F), whole or not at all.

        Raises:
            InputError: If it cannot be written, as on a full disk.
        """
        try:
            with whole_file(self.path(key)) as temporary, temporary.open("wb") as stream:
                np.save(stream, table)
        except OSError as error:
            raise self._full(error, f"room for {table.nbytes / 2**20:.0f} MiB") from error

    def _full(self, got: object, expected: str) -> InputError:
        remedy = "make room, or give another folder with --feature_store; stored features can be"
        remedy += " deleted at any time"
        what = f"Features cannot be stored in {self.folder}"
        return InputError(what, got=got, expected=expected, remedy=remedy)
