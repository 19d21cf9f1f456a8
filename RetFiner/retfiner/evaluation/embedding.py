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
from retfiner.common.processes import available_cores, handing_over, start_reader
from retfiner.common.progress import progress
from retfiner.data.exams import Exam, Place, Slices
from retfiner.data.manifest import Manifest
from retfiner.export.loading import LoadedModel, require_exams
from retfiner.model import Groups
from retfiner.vision.exams import marks_of
from retfiner.vision.images import ImageAddress, read_image
from retfiner.vision.preprocessing import EvaluationTransform

Subjects = Sequence[ImageAddress] | Sequence[Exam]
"""What is looked at one after another: images, or exams of several."""


def subjects_of(pairs: Manifest) -> Subjects:
    """Return the exams of pairs, or the images where they are not grouped."""
    return pairs.images if pairs.exams is None else pairs.exams


class ImageBatch(NamedTuple):
    """A batch of images (N, C, H, W), normalised, and which of the subjects they are.

    Images that cannot be read are left out, and so are exams of which none can; ``unreadable`` has
    the reason for each subject that lacks one. ``groups`` says which images are of one exam.
    """

    positions: list[int]
    images: Tensor
    unreadable: dict[int, str]
    groups: Groups | None = None


def _read(
    subjects: Subjects,
    transform: EvaluationTransform,
    slices: Slices | None,
    positions: Sequence[int],
) -> ImageBatch:
    images: list[Tensor] = []
    marks: list[list[float]] = []
    sizes: dict[int, int] = {}
    unreadable: dict[int, str] = {}
    for position in positions:
        before = len(images)
        for image, along, eye, kind in _places(subjects[position], slices):
            try:
                images.append(transform(read_image(image)))
                marks.append(marks_of(along, eye, kind))
            except InputError as error:  # a worker's exception would arrive as a page of traceback
                unreadable.setdefault(position, str(error))
        if len(images) > before:
            sizes[position] = len(images) - before
    stacked = torch.stack(images) if images else torch.empty(0)
    groups = None if slices is None else Groups(tuple(sizes.values()), torch.tensor(marks))
    return ImageBatch(list(sizes), stacked, unreadable, groups)


def _places(subject: ImageAddress | Exam, slices: Slices | None) -> list[Place]:
    if isinstance(subject, ImageAddress):
        return [Place(subject, None, "", "")]
    assert slices is not None, "exams are read by their slices"
    return [subject.place(number) for number in slices.choose(subject)]


def read_batches(
    subjects: Subjects,
    transform: EvaluationTransform,
    title: str,
    batch_size: int,
    workers: int | None = None,
    use: Sequence[int] | None = None,
    slices: Slices | None = None,
) -> Iterator[ImageBatch]:
    """Read images, or those at the positions ``use``, in order, by default in a process a core.

    Of exams, the images that ``slices`` chooses; ``batch_size`` counts images.

    Yields:
        Batches; a batch of which no image can be read has none.
    """
    use = range(len(subjects)) if use is None else use
    each = 1 if slices is None else slices.most
    if workers is None:
        workers = min(8, available_cores(), len(use) * each // 256)  # a process takes a second
    loader: DataLoader[int] = DataLoader(  # of positions; workers read where they collate
        use,  # type: ignore[arg-type]
        max(1, batch_size // each),
        collate_fn=handing_over(partial(_read, subjects, transform, slices)),
        num_workers=workers,
        worker_init_fn=start_reader,
    )
    with progress(title, len(use)) as bar:
        for batch in loader:
            yield batch
            bar.update(len({*batch.positions, *batch.unreadable}))


@dataclass(frozen=True)
class ImageStream:
    """Reads image files for a model, by default in a process a core but at most 8."""

    loaded: LoadedModel
    batch_size: int
    num_workers: int | None = None

    def batches(
        self, subjects: Subjects, title: str, use: Sequence[int] | None = None
    ) -> Iterator[ImageBatch]:
        """Read images or exams, or those at the positions ``use``, as :func:`read_batches` does.

        Of exams as many images are read as the training validated on.

        Raises:
            InputError: If they are exams, and the model was refined on single images.
        """
        slices = None
        if len(subjects) and isinstance(subjects[0], Exam):
            require_exams(self.loaded.model)
            slices = Slices.of(self.loaded.description["settings"])
        transform, size, workers = self.loaded.transform, self.batch_size, self.num_workers
        return read_batches(subjects, transform, title, size, workers, use, slices)

    def batches_of_pairs(self, pairs: Manifest, title: str, skip: bool) -> Iterator[ImageBatch]:
        """Read the images, or exams, of pairs; ``skip`` leaves out images that cannot be read.

        Yields:
            Batches with an image in each.

        Raises:
            InputError: If an image cannot be read and is not to be left out, or none can.
        """
        any_read, reason = False, "none"
        for batch in self.batches(subjects_of(pairs), title):
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
        """Embed the images, or exams, of pairs.

        Returns:
            The N pairs that could be read, and (N, E) unit vectors, float32 on the CPU.

        Raises:
            InputError: As :meth:`batches_of_pairs`, or if an embedding is not finite.
        """
        kept: list[int] = []
        vectors = []
        for batch in self.batches_of_pairs(pairs, "embedding images", skip):
            kept += batch.positions
            vectors.append(self.loaded.embed_images(batch.images, batch.groups))
        return pairs.select(kept), torch.cat(vectors)
