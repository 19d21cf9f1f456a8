"""Image-report pairs as a data set, and how a batch is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from retfiner.common.errors import InputError
from retfiner.data.cache import ImageCache
from retfiner.data.manifest import Manifest
from retfiner.vision.images import read_image
from retfiner.vision.preprocessing import EvaluationTransform


class ImageCaptionDataset(Dataset[tuple[Tensor, str]]):
    """The pairs of a CSV: item i is (image tensor, report).

    Args:
        manifest: The checked pairs.
        transform: Turns a B-scan, (H, W) float in [0, 1], into a normalised (C, H, W) tensor.
        use_cache: Whether to keep decoded images for the length of the run.
    """

    def __init__(
        self, manifest: Manifest, transform: EvaluationTransform, use_cache: bool = False
    ) -> None:
        self.manifest = manifest
        self.transform = transform
        self.cache = ImageCache(len(manifest), transform.image_size) if use_cache else None

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Read a pair.

        Raises:
            InputError: If the image cannot be decoded; the message names its row and path.
        """
        if self.cache is None:
            image = self.transform(self._read(index))
        else:
            resized = self.cache.get(index, lambda: self.transform.resized(self._read(index)))
            image = self.transform.normalised(resized)
        return image, self.manifest.reports[index]

    def _read(self, index: int) -> np.ndarray:
        try:
            return read_image(self.manifest.images[index])
        except InputError as error:
            raise InputError(
                f"row {self.manifest.rows[index]} of {self.manifest.source}: {error}",
                remedy="mend the file, or give --on_bad_row skip to train without it",
            ) from error


class Numbered(NamedTuple):
    """An item of a data set, or why it cannot be read, with the number its owner knows it by."""

    row: int
    item: Any


@dataclass(eq=False)
class NumberedPairs(Dataset[Numbered]):
    """Any data set of [image, report], with each item's number beside it: by default its position.

    An item that cannot be read is returned as its error instead of raised: workers hand exceptions
    on as a page of traceback, and whether a bad row matters is decided where batches are made.
    """

    pairs: Dataset[Any]
    numbers: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Numbered:
        """Return the item at ``index``, or the error in its place."""
        number = index if self.numbers is None else self.numbers[index]
        try:
            return Numbered(number, self.pairs[index])
        except InputError as error:
            return Numbered(number, error)
