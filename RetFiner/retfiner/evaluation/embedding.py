"""Image files one batch after another: what lies in memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from retfiner.common.errors import InputError
from retfiner.common.processes import available_cores
from retfiner.data.manifest import Manifest
from retfiner.export.loading import LoadedModel
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.preprocessing import EvaluationTransform


class ImageBatch(NamedTuple):
    """A batch of images.

    Attributes:
        positions: Which of the addresses they are; those that cannot be read are left out.
        images: (B, C, H, W), normalised.
        unreadable: The reason for each position that cannot be read.
    """

    positions: list[int]
    images: Tensor
    unreadable: dict[int, str]


class _ImageFiles(Dataset[tuple[int, Tensor | str]]):
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


def _collate(items: list[tuple[int, Tensor | str]]) -> ImageBatch:
    images = {position: image for position, image in items if isinstance(image, Tensor)}
    unreadable = {position: why for position, why in items if isinstance(why, str)}
    stacked = torch.stack(list(images.values())) if images else torch.empty(0)
    return ImageBatch(list(images), stacked, unreadable)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def stream_images(
    loaded: LoadedModel,
    addresses: Sequence[ImageAddress],
    batch_size: int,
    num_workers: int | None,
    title: str,
    use: Sequence[int] | None = None,
) -> Iterator[ImageBatch]:
    """Read images in order, as the model takes them.

    Args:
        loaded: The model.
        addresses: Where they lie.
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
        _ImageFiles(addresses, loaded.transform, use),
        batch_size,
        collate_fn=_collate,
        num_workers=num_workers,
        worker_init_fn=_one_thread if num_workers else None,
    )
    with tqdm(total=len(use), desc=title, unit="image", leave=False, disable=None) as progress:
        for batch in loader:
            yield batch
            progress.update(len(batch.positions) + len(batch.unreadable))


def embed_files(
    loaded: LoadedModel,
    addresses: Sequence[ImageAddress],
    batch_size: int,
    num_workers: int | None,
    check: Callable[[dict[int, str]], None] = lambda unreadable: None,
) -> tuple[Tensor, dict[int, str]]:
    """Embed N images one batch after another.

    Args:
        loaded: The model.
        addresses: Where they lie.
        batch_size: Images at a time.
        num_workers: Processes that read them.
        check: Is shown the unreadable images of each batch, and may raise.

    Returns:
        (N, E) unit vectors, float32 on the CPU, and the reason for each position that could not be
        read, whose row is zero.

    Raises:
        InputError: If none can be read, or an embedding is not finite.
    """
    rows: Tensor | None = None
    unreadable: dict[int, str] = {}
    for batch in stream_images(loaded, addresses, batch_size, num_workers, "embedding images"):
        check(batch.unreadable)
        unreadable |= batch.unreadable
        if batch.positions:
            embedded = loaded.embed_images(batch.images)
            if rows is None:
                rows = torch.zeros(len(addresses), embedded.shape[1])
            rows[batch.positions] = embedded
    if rows is None:
        raise InputError("no image can be read", got=next(iter(unreadable.values()), "none"))
    return rows, unreadable


def embed_pairs(
    loaded: LoadedModel, manifest: Manifest, batch_size: int, num_workers: int | None, skip: bool
) -> tuple[Manifest, Tensor]:
    """Embed the images of pairs.

    Args:
        loaded: The model.
        manifest: The pairs.
        batch_size: Images at a time.
        num_workers: Processes that read them.
        skip: Leave out pairs whose image cannot be read.

    Returns:
        The N pairs that are left, and (N, E) unit vectors.

    Raises:
        InputError: If an image cannot be read and is not to be left out, or none is left.
    """
    vectors, unreadable = embed_files(
        loaded,
        manifest.images,
        batch_size,
        num_workers,
        lambda unreadable: require_readable(manifest, unreadable, skip),
    )
    if not unreadable:
        return manifest, vectors
    kept = [position for position in range(len(manifest)) if position not in unreadable]
    return manifest.select(kept), vectors[kept]


def require_readable(manifest: Manifest, unreadable: dict[int, str], skip: bool) -> None:
    """Refuse images that cannot be read, unless they are to be left out.

    Raises:
        InputError: Names the first one's row.
    """
    if unreadable and not skip:
        position, reason = next(iter(unreadable.items()))
        raise InputError(
            f"row {manifest.rows[position]} of {manifest.source}: {reason}",
            remedy="mend the file, or give --on_bad_row skip to leave it out",
        )
