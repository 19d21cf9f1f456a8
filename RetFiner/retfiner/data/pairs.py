"""Image-report pairs as a data set, and how a batch is put together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from retfiner.batch import Batch, identify_reports
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.data.cache import ImageCache
from retfiner.data.manifest import Manifest, OnBadRow
from retfiner.text.tokenizer import tokenize
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


class NumberedPairs(Dataset[Numbered]):
    """Any data set of [image, report], with each item's number beside it.

    An item that cannot be read is returned as its error instead of raised: workers hand exceptions
    on as a page of traceback, and whether a bad row matters is decided where batches are made.

    Args:
        pairs: The data set.
        numbers: What each item is called in messages, a CSV's row numbers for example; by default
            its position.
    """

    def __init__(self, pairs: Dataset[Any], numbers: Sequence[int] | None = None) -> None:
        self.pairs = pairs
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Numbered:
        """Return the item at ``index``, or the error in its place."""
        number = index if self.numbers is None else self.numbers[index]
        try:
            return Numbered(number, self.pairs[index])
        except InputError as error:
            return Numbered(number, error)


class Collated(NamedTuple):
    """What a worker hands to the main process.

    Attributes:
        batch: The batch, or why there can be none.
        left_out: Number and reason of each pair that could not be read and was left out.
    """

    batch: Batch | InputError
    left_out: list[tuple[int, str]]


class Collate:
    """Put pairs together to a batch: stack images, tokenise reports, find identical ones.

    Args:
        tokenizer: The text encoder's tokenizer.
        max_tokens: Reports are cut at this many WordPieces.
        image_shape: (C, H, W) the backbone expects.
        on_bad_row: Whether an unreadable pair is an error or left out.
        least: Fewest pairs that have to be left: two to contrast, or one where other processes
            hold pairs of the same batch.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        image_shape: tuple[int, int, int],
        on_bad_row: OnBadRow = "error",
        least: int = 2,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.image_shape = image_shape
        self.on_bad_row = on_bad_row
        self.least = least

    def __call__(self, items: list[Numbered]) -> Collated:
        """Build a batch of the items that could be read, or say which error forbids it."""
        unreadable = [(n.row, n.item) for n in items if isinstance(n.item, InputError)]
        try:
            if unreadable and self.on_bad_row == "error":
                raise unreadable[0][1]
            batch = self._build(
                [n for n in items if not isinstance(n.item, InputError)], len(items)
            )
        except InputError as error:
            return Collated(error, [])
        return Collated(batch, [(row, error.problem) for row, error in unreadable])

    def _build(self, kept: list[Numbered], planned: int) -> Batch:
        if len(kept) < min(self.least, planned):
            raise InputError(
                "a batch has lost its pairs",
                got=f"{planned - len(kept)} of {planned} images cannot be decoded",
                expected=f"at least {self.least} readable a batch",
                remedy="mend the image files; --on_bad_row error names each",
            )
        pairs = [self._check(n.row, n.item) for n in kept]
        reports = [report for _, report in pairs]
        tokens = tokenize(self.tokenizer, reports, self.max_tokens)
        return Batch(
            images=torch.stack([image for image, _ in pairs]),
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            lengths=tuple(tokens.attention_mask.sum(1).tolist()),
            report_ids=identify_reports(reports),
            rows=torch.tensor([n.row for n in kept]),
        )

    def _check(self, row: int, pair: Any) -> tuple[Tensor, str]:
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if is_pair and isinstance(pair[0], Tensor) and isinstance(pair[1], str):
            image, report = pair
            if tuple(image.shape) == self.image_shape and image.is_floating_point():
                return image, report
            got = f"an image tensor of shape {tuple(image.shape)} and type {image.dtype}"
        else:
            kinds = [type(part).__name__ for part in pair] if is_pair else type(pair).__name__
            got = f"{kinds}"
        raise InputError(
            f"item {row} of the data set is not an image-report pair",
            got=got,
            expected=f"[float image tensor {self.image_shape}, report string]",
            remedy="apply the transform that the data set is given to each image",
        )


class EvenBatches(BatchSampler):
    """Batches of almost equal size, so that none is too small for a contrast.

    1,025 pairs at batch size 128 make nine batches of 113 or 114, not eight of 128 and one of 1.
    Several processes share each batch in almost equal parts: all take the same number of steps, and
    every pair is seen once an epoch.

    Args:
        size: Number of pairs.
        batch_size: The most pairs in a batch, or in a process's part of one.
        seed: What the order depends on.
        shuffle: Whether each epoch has an order of its own.
        rank: Which process this is.
        processes: How many share a batch.

    Attributes:
        skip: How many batches the next epoch leaves out at its beginning, once.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.size = size
        self.rank = rank
        self.processes = processes
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.skip = 0
        # Lightning calls set_epoch on `.sampler`; the order is ours, so we are our own sampler.
        self.sampler = self  # type: ignore[assignment]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.size / (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        purpose = self.epoch if self.shuffle else "fixed"
        order = torch.randperm(self.size, generator=generator(self.seed, "order", purpose))
        skip, self.skip = self.skip, 0
        for chunk in order.tensor_split(len(self))[skip:]:
            yield chunk.tensor_split(self.processes)[self.rank].tolist()


class ResumableLoader(DataLoader[Any]):
    """A loader that goes on in the middle of an epoch where a checkpoint was written.

    Without its state, a resumed epoch would begin with the batches that it has already seen and
    leave out the last ones.
    """

    batch_sampler: EvenBatches
    batches_given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of an epoch, of the first one after loading a state only the rest."""
        self.batches_given = self.batch_sampler.skip
        for batch in super().__iter__():
            self.batches_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were given."""
        return {"batches_given": self.batches_given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out the batches that were given before, unless they were the whole epoch."""
        self.batch_sampler.skip = state["batches_given"] % len(self.batch_sampler)
