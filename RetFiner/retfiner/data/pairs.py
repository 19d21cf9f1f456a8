"""Image-report pairs as a data set, their decoded images kept for the length of a run if asked."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retfiner.common.errors import InputError
from retfiner.data.exams import Slices
from retfiner.data.manifest import Manifest
from retfiner.data.sampler import Draw
from retfiner.vision.exams import marks_of
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.images.read_as import OCT
from retfiner.vision.preprocessing import EvaluationTransform


class ImageCache:
    """Images at the backbone's input size as uint8, in a temporary file that all workers share.

    Decoding and resizing B-scans takes most of the time when epochs are many and the model is small
    or the workers few. An image is decoded the first time it is asked for, by whichever process
    asks. The file goes when the cache does, so it is never stale. Rounding to 8 bits changes an
    intensity by at most 1/510.
    """

    def __init__(self, count: int, image_size: int, channels: int = 1) -> None:
        self.shape = (count, channels, image_size, image_size)
        self.folder = tempfile.TemporaryDirectory(prefix="retfiner-images-")
        self.path = Path(self.folder.name) / "images.u8"
        self._images: Any = None
        self._is_filled: Any = None
        try:
            for name, shape in ((self.path, self.shape), (self._flags, (count,))):
                _reserve(name, math.prod(shape))
        except OSError as error:
            self.folder.cleanup()
            raise InputError(
                "there is no room for --image_cache",
                got=f"{error.strerror} in {self.path.parent.parent}",
                expected=f"{math.prod(self.shape) / 2**20:.0f} MiB",
                remedy="leave --image_cache out, or name a folder on another disk with TMPDIR",
            ) from error

    @property
    def _flags(self) -> Path:
        return self.path.with_name("filled.u8")

    def get(self, index: int, decode: Callable[[], Tensor]) -> Tensor:
        """Return an image, (C, S, S) float32 in [0, 1]; ``decode`` gives it the first time."""
        if self._images is None:  # opened once a process
            self._images = np.memmap(self.path, dtype=np.uint8, mode="r+", shape=self.shape)
            self._is_filled = np.memmap(
                self._flags, dtype=np.uint8, mode="r+", shape=self.shape[:1]
            )
        if not self._is_filled[index]:
            self._images[index] = (decode() * 255).round().to(torch.uint8).numpy()
            self._is_filled[index] = 1  # after the image: another process never reads half of it
        return torch.from_numpy(self._images[index].astype(np.float32)) / 255

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "path": self.path, "_images": None, "_is_filled": None}


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros that has its place on the disk.

    Written to through memory, a file without one would end the process as soon as the disk is full.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # absent on macOS and Windows
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


class ExamItem(NamedTuple):
    """An exam that was read.

    Attributes:
        images: (K, C, S, S), normalised, of the images that were chosen and can be decoded.
        report: Its report.
        marks: (K, MARKS) where each is in the exam, see :mod:`retfiner.vision.exams`.
        unreadable: Why others of the chosen ones cannot be decoded.
    """

    images: Tensor
    report: str
    marks: Tensor
    unreadable: tuple[InputError, ...] = ()


class ImageCaptionDataset(Dataset["tuple[Tensor, str] | ExamItem"]):
    """The pairs of a CSV: item i is (image tensor, report), or of exams an :class:`ExamItem`.

    Args:
        manifest: The checked pairs.
        transform: Turns a B-scan, (H, W) float in [0, 1], into a normalised (C, H, W) tensor.
        use_cache: Whether to keep decoded images for the length of the run.
        slices: Which images of an exam are used.
    """

    def __init__(
        self,
        manifest: Manifest,
        transform: EvaluationTransform,
        use_cache: bool = False,
        slices: Slices | None = None,
    ) -> None:
        self.manifest = manifest
        self.transform = transform
        self.slices = slices or Slices()
        counts = [min(len(exam), self.slices.most) for exam in manifest.exams or []]
        self._first = np.cumsum([0, *counts])
        self.cache = None
        if use_cache:
            keeps_colour = transform.in_chans == 3 and manifest.modalities != {OCT}
            channels = 3 if keeps_colour else 1
            count = len(manifest) if manifest.exams is None else sum(counts)
            self.cache = ImageCache(count, transform.image_size, channels)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> tuple[Tensor, str] | ExamItem:
        """Read a pair.

        Raises:
            InputError: If the image cannot be decoded; the message names its row and path.
        """
        return self.drawn(index, None)

    def drawn(self, index: int, epoch: int | None) -> tuple[Tensor, str] | ExamItem:
        """Read a pair as it is drawn in an epoch, see :class:`Slices`.

        Raises:
            InputError: If the image, or every image of an exam, cannot be decoded.
        """
        report, exams = self.manifest.reports[index], self.manifest.exams
        if exams is None:
            return self._image(index, self.manifest.images[index], index), report
        images, marks, unreadable = [], [], []
        chosen = self.slices.choose(exams[index], self.manifest.rows[index], epoch)
        for place, number in enumerate(chosen):
            address, position, eye, kind = exams[index].place(number)
            try:
                images.append(self._image(int(self._first[index]) + place, address, index))
                marks.append(marks_of(position, eye, kind))
            except InputError as error:
                unreadable.append(error)
        if not images:
            raise unreadable[0]
        return ExamItem(torch.stack(images), report, torch.tensor(marks), tuple(unreadable))

    def _image(self, place: int, address: ImageAddress, index: int) -> Tensor:
        if self.cache is None:
            return self.transform(self._read(address, index))
        resized = self.cache.get(place, lambda: self.transform.resized(self._read(address, index)))
        return self.transform.normalised(resized)

    def _read(self, address: ImageAddress, index: int) -> np.ndarray:
        try:
            return read_image(address)
        except InputError as error:
            raise InputError(
                f"row {self.manifest.rows[index]} of {self.manifest.source}: {error}",
                remedy="mend the file, or give --on_bad_row skip to train without it",
            ) from error


class Numbered(NamedTuple):
    """An item of a data set, or why it cannot be read, with the number its owner knows it by.

    ``address`` says where its image lies; None where the data set alone knows. ``epoch`` is the one
    it is drawn for; None where nothing is drawn anew.
    """

    row: int
    item: Any
    address: ImageAddress | None = None
    epoch: int | None = None


@dataclass(eq=False)
class NumberedPairs(Dataset[Numbered]):
    """Any data set of [image, report], with each item's number beside it: by default its position.

    ``addresses`` say where images lie, so that rows of the same image are known.

    An item that cannot be read is returned as its error instead of raised: workers hand exceptions
    on as a page of traceback, and whether a bad row matters is decided where batches are made.
    """

    pairs: Dataset[Any]
    numbers: Sequence[int] | None = None
    addresses: Sequence[ImageAddress] | None = None

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, index: int | Draw) -> Numbered:
        """Return the item at ``index``, as drawn in its epoch, or the error in its place."""
        index, epoch = index if isinstance(index, Draw) else (index, None)
        number = index if self.numbers is None else self.numbers[index]
        address = None if self.addresses is None else self.addresses[index]
        try:
            is_drawn = epoch is not None and isinstance(self.pairs, ImageCaptionDataset)
            item = self.pairs.drawn(index, epoch) if is_drawn else self.pairs[index]  # type: ignore[attr-defined]
            return Numbered(number, item, address, epoch)
        except InputError as error:
            return Numbered(number, error, address, epoch)
