"""Image files one batch after another: what lies in memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from retfiner.common.errors import InputError
from retfiner.common.processes import available_cores
from retfiner.common.progress import progress, track
from retfiner.data.exams import Slices
from retfiner.data.manifest import Manifest
from retfiner.data.pairs import ImageCaptionDataset, Numbered, NumberedPairs
from retfiner.export.loading import LoadedModel
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.preprocessing import EvaluationTransform


class ImageBatch(NamedTuple):
    """A batch of images (B, C, H, W), normalised, and which of the addresses they are.

    Those that cannot be read are left out of both; ``unreadable`` has the reason for each of them.
    """

    positions: list[int]
    images: Tensor
    unreadable: dict[int, str]


def _read(
    addresses: Sequence[ImageAddress], transform: EvaluationTransform, positions: Sequence[int]
) -> ImageBatch:
    images, unreadable = {}, {}
    for position in positions:
        try:
            images[position] = transform(read_image(addresses[position]))
        except InputError as error:  # a worker's exception would arrive as a page of traceback
            unreadable[position] = str(error)
    stacked = torch.stack(list(images.values())) if images else torch.empty(0)
    return ImageBatch(list(images), stacked, unreadable)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def read_batches(
    addresses: Sequence[ImageAddress],
    transform: EvaluationTransform,
    title: str,
    batch_size: int,
    workers: int | None = None,
    use: Sequence[int] | None = None,
) -> Iterator[ImageBatch]:
    """Read images, or those at the positions ``use``, in order, by default in a process a core.

    Yields:
        Batches; a batch of which no image can be read has none.
    """
    use = range(len(addresses)) if use is None else use
    if workers is None:
        workers = min(8, available_cores(), len(use) // 256)  # a process takes a second
    loader: DataLoader[int] = DataLoader(  # of positions; workers read where they collate
        use,  # type: ignore[arg-type]
        batch_size,
        collate_fn=partial(_read, addresses, transform),
        num_workers=workers,
        worker_init_fn=_one_thread,
    )
    with progress(title, len(use)) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch.positions) + len(batch.unreadable))


@dataclass(frozen=True)
class ImageStream:
    """Reads image files for a model, by default in a process a core but at most 8."""

    loaded: LoadedModel
    batch_size: int
    num_workers: int | None = None

    def batches(
        self, addresses: Sequence[ImageAddress], title: str, use: Sequence[int] | None = None
    ) -> Iterator[ImageBatch]:
        """Read images, or those at the positions ``use``, as :func:`read_batches` does."""
        transform, size, workers = self.loaded.transform, self.batch_size, self.num_workers
        return read_batches(addresses, transform, title, size, workers, use)

    def batches_of_pairs(self, pairs: Manifest, title: str, skip: bool) -> Iterator[ImageBatch]:
        """Read the images of pairs; ``skip`` leaves out those that cannot be read.

        Yields:
            Batches with an image in each.

        Raises:
            InputError: If an image cannot be read and is not to be left out, or none can.
        """
        any_read, reason = False, "none"
        for batch in self.batches(pairs.images, title):
            for position, reason in batch.unreadable.items():
                if not skip:
                    raise InputError(
                        f"row {pairs.rows[position]} of {pairs.source}: {reason}",
                        remedy="mend the file, or give --on_bad_row skip to leave it out",
                    )
            if batch.positions:
                any_read = True
                yield batch
        if not any_read:
            raise InputError(f"no image of {pairs.source} can be read", got=reason)

    def embed_pairs(self, pairs: Manifest, skip: bool) -> tuple[Manifest, Tensor]:
        """Embed the images of pairs.

        Returns:
            The N pairs whose image could be read, and (N, E) unit vectors, float32 on the CPU.

        Raises:
            InputError: As :meth:`batches_of_pairs`, or if an embedding is not finite.
        """
        if pairs.exams is not None:
            return self._embed_exams(pairs, skip)
        kept: list[int] = []
        vectors = []
        for batch in self.batches_of_pairs(pairs, "embedding images", skip):
            kept += batch.positions
            vectors.append(self.loaded.embed_images(batch.images))
        return pairs.select(kept), torch.cat(vectors)

    def _embed_exams(self, pairs: Manifest, skip: bool) -> tuple[Manifest, Tensor]:
        """Embed exams, of as many images each as the training validated."""
        settings = self.loaded.description["settings"]
        slices = Slices(settings["slices"], settings["max_slices"])
        exams = NumberedPairs(ImageCaptionDataset(pairs, self.loaded.transform, slices=slices))
        loader: DataLoader[Numbered] = DataLoader(
            exams, batch_size=None, num_workers=self.num_workers or 0, worker_init_fn=_one_thread
        )
        kept, vectors, reason = [], [], None
        for position, (_, exam, *_) in enumerate(track(loader, "embedding", len(pairs), "exam")):
            broken = [exam] if isinstance(exam, InputError) else exam.unreadable
            reason = next(iter(broken), reason)
            if broken and not skip:
                raise broken[0]
            if not isinstance(exam, InputError):
                kept.append(position)
                vectors.append(self.loaded.embed_exam(exam.images, exam.marks)[0])
        if not kept:
            raise InputError(f"no exam of {pairs.source} can be read", got=reason)
        return pairs.select(kept), torch.stack(vectors)
