"""Images one batch after another: what lies in memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from retfiner.common.errors import InputError
from retfiner.common.processes import available_cores
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.preprocessing import EvaluationTransform


class ReadImages(NamedTuple):
    """A batch of images.

    Attributes:
        positions: Which of the addresses they are; those that cannot be read are left out.
        images: (B, C, H, W), normalised.
        unreadable: Position and reason of each that cannot be read.
    """

    positions: list[int]
    images: Tensor
    unreadable: list[tuple[int, str]]


class _Addresses(Dataset[tuple[int, Tensor | str]]):
    def __init__(
        self, addresses: Sequence[ImageAddress], transform: EvaluationTransform, use: Sequence[int]
    ) -> None:
        self.addresses = addresses
        self.transform = transform
        self.use = use

    def __len__(self) -> int:
        return len(self.use)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        position = self.use[index]
        try:
            return position, self.transform(read_image(self.addresses[position]))
        except InputError as error:  # a worker's exception would arrive as a page of traceback
            return position, str(error)


def _collate(items: list[tuple[int, Tensor | str]]) -> ReadImages:
    good = [(position, image) for position, image in items if isinstance(image, Tensor)]
    bad = [(position, why) for position, why in items if isinstance(why, str)]
    images = torch.stack([image for _, image in good]) if good else torch.empty(0)
    return ReadImages([position for position, _ in good], images, bad)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def stream_images(
    addresses: Sequence[ImageAddress],
    transform: EvaluationTransform,
    batch_size: int,
    num_workers: int | None,
    title: str,
    use: Sequence[int] | None = None,
) -> Iterator[ReadImages]:
    """Read images in order.

    Args:
        addresses: Where they lie.
        transform: What turns a B-scan into the model's input.
        batch_size: The most in a batch.
        num_workers: Processes that read; by default one a core, at most 8.
        title: What the progress bar says.
        use: Positions of those to read; by default all.

    Yields:
        Batches; a batch of which no image can be read has none.
    """
    use = range(len(addresses)) if use is None else use
    if num_workers is None:
        num_workers = min(8, available_cores(), len(use) // 256)  # a process takes a second
    loader = DataLoader(
        _Addresses(addresses, transform, use),
        batch_size,
        collate_fn=_collate,
        num_workers=num_workers,
        worker_init_fn=_one_thread if num_workers else None,
    )
    with tqdm(total=len(use), desc=title, unit="image", leave=False, disable=None) as progress:
        for batch in loader:
            yield batch
            progress.update(len(batch.positions) + len(batch.unreadable))
