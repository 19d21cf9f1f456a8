"""Writing the images of a data set with all cores and little memory."""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from linprobe.prepare.borders import zero_white_borders
from linprobe.prepare.spec import GrayImage
from retfiner.common.errors import InputError
from retfiner.common.processes import leave_interrupts_alone
from retfiner.common.progress import progress

COMPRESSION = 4
"""Of PNG: speckle becomes no smaller with more, and is written in three quarters of the time."""
_CHUNK, _LARGEST_CHUNK = 8, 512  # jobs that go to a process at once
_IN_FLIGHT = 3  # chunks a process


@dataclass(frozen=True)
class Written:
    """What became of an image.

    Attributes:
        sha256: Of the file.
        pixels_sha256: Of the gray values and their shape, which depends on no compressor; None for
            a file that was copied.
        border: Share of the image that was white border and was zeroed.
    """

    sha256: str
    pixels_sha256: str | None
    border: float = 0.0


@dataclass(frozen=True)
class Job:
    """An image to write.

    Attributes:
        image: Where, relative to the data set.
        make: Writes it to the path given; can be sent to another process.
        origin: File it comes from; those of one file go to one process, one after the other.
    """

    image: str
    make: Callable[[Path], Written]
    origin: str


def write_png(
    target: Path, *, read: Callable[[], GrayImage], zero_borders: bool, source: str
) -> Written:
    """Read a B-scan and write it as an 8-bit grayscale PNG.

    Raises:
        InputError: If it cannot be read or written.
    """
    image = read()
    if image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        raise InputError(
            f"{source} is no B-scan",
            got=f"{image.dtype} of shape {image.shape}",
            expected="uint8 of shape (H, W)",
        )
    border = 0.0
    if zero_borders:
        image, border = zero_white_borders(image)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=COMPRESSION)
    _write(target, stream.getvalue())
    pixels = hashlib.sha256(f"{image.shape[0]} {image.shape[1]} ".encode())
    pixels.update(np.ascontiguousarray(image).data)
    return Written(hashlib.sha256(stream.getvalue()).hexdigest(), pixels.hexdigest(), border)


def copy_file(target: Path, *, source: Path) -> Written:
    """Copy a file byte for byte.

    Raises:
        InputError: If it cannot be read or written.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InputError(f"The image {source} cannot be read", got=error) from error
    _write(target, content)
    return Written(hashlib.sha256(content).hexdigest(), None)


def _write(target: Path, content: bytes) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{target.name} cannot be written below {target.parent}",
            got=error,
            remedy="see whether the disk is full; nothing of this data set is left behind",
        ) from error


def write_images(jobs: Sequence[Job], folder: Path, workers: int) -> list[Written]:
    """Write images, a few of them in memory at a time.

    Returns:
        What became of each, in the order of the jobs.

    Raises:
        InputError: If an image cannot be read or written, or a process died.
    """
    for parent in {(folder / job.image).parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    with progress("writing images", len(jobs)) as bar:
        if workers <= 1:
            written = []
            for job in jobs:
                written.append(job.make(folder / job.image))
                bar.update()
            return written
        done: dict[int, list[Written]] = {}
        # Closed at once also when the loop is left early: no process writes on behind our back.
        with closing(_in_processes(jobs, folder, workers)) as chunks:
            for index, results in chunks:
                done[index] = results
                bar.update(len(results))
    return list(itertools.chain.from_iterable(done[index] for index in sorted(done)))


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Group jobs; a volume is not torn, so that one process reads it once."""
    chunk: list[Job] = []
    for job in jobs:
        full = len(chunk) >= _CHUNK and chunk[-1].origin != job.origin
        if full or len(chunk) >= _LARGEST_CHUNK:
            yield chunk
            chunk = []
        chunk.append(job)
    if chunk:
        yield chunk


def _make_all(chunk: list[Job], folder: Path) -> list[Written]:
    return [job.make(folder / job.image) for job in chunk]


def _in_processes(
    jobs: Sequence[Job], folder: Path, workers: int
) -> Generator[tuple[int, list[Written]], None, None]:
    """Yield the number and the results of each chunk, as they are done."""
    # Spawned, not forked: a forked child of a process that runs threads (torch) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=leave_interrupts_alone)
    running: dict[Future[list[Written]], int] = {}
    chunks = enumerate(_chunks(jobs))
    try:
        while True:
            for index, chunk in itertools.islice(chunks, workers * _IN_FLIGHT - len(running)):
                running[pool.submit(_make_all, chunk, folder)] = index
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A process that writes images was ended from outside",
            got=error,
            remedy="it may have run out of memory: give a smaller --num_workers",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
