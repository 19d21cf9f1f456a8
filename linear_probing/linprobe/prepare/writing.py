"""A data set on the disk: its images by all cores and little memory, what it is, and its place.

It appears in its place when it is complete, and not before.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import multiprocessing
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from linprobe.prepare.archives import SourceFile
from linprobe.prepare.borders import zero_white_borders
from linprobe.prepare.spec import DataSetSpec, GrayImage
from linprobe.prepare.tables import SPLITS, count
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import write_text
from retfiner.common.processes import leave_interrupts_alone
from retfiner.common.progress import progress

if TYPE_CHECKING:
    import pandas as pd

COMPRESSION = 4
"""Of PNG: speckle becomes no smaller with more, and is written in three quarters of the time."""
DESCRIPTION = "dataset.json"
"""Beside the splits: what the data set is and what was done to it."""
FORMAT = 1
"""Raised when a reader of ``dataset.json`` would have to know of a change."""

_CHUNK, _LARGEST_CHUNK = 8, 512  # jobs that go to a process at once
_SOFTWARE = ("retfiner", "numpy", "scipy", "scikit-learn", "pillow")


class Written(NamedTuple):
    """What became of an image: hashes, and the share of it that was white border and was zeroed.

    The hash of the pixels, gray values and shape, depends on no compressor; None for a copied file.
    """

    sha256: str
    pixels_sha256: str | None
    border: float = 0.0


class Job(NamedTuple):
    """An image to write: its place in the data set, and what writes it to the path given.

    ``make`` can be sent to another process. Images of one ``origin``, the file they come from, go
    to one process, one after the other.
    """

    image: str
    make: Callable[[Path], Written]
    origin: str


class Plan(NamedTuple):
    """What is to be written; ``jobs`` and ``rows`` have an item an image, hashes are missing yet.

    ``expected`` is a table whose split is repeated; only its split and a download's own may share
    patients.
    """

    jobs: list[Job]
    rows: pd.DataFrame
    notes: list[str]
    done: dict[str, Any]
    may_share: bool
    expected: pd.DataFrame | None = None
    pictures: Mapping[str, Callable[[], GrayImage]] = MappingProxyType({})


def write_png(
    target: Path, *, read: Callable[[], GrayImage], zero_borders: bool, source: str
) -> Written:
    """Read a B-scan and write it as an 8-bit grayscale PNG; an InputError where that fails."""
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
    """Copy a file byte for byte; an InputError where that fails."""
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
    """Write images, a few of them in memory at a time, and tell what became of each.

    Raises:
        InputError: If an image cannot be read or written, or a process died.
    """
    for parent in {(folder / job.image).parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    make = partial(_make_all, folder=folder)
    alone = map(make, ([job] for job in jobs))
    written: list[Written] = []
    with progress("writing images", len(jobs)) as bar:
        for chunk in alone if workers < 2 else _in_processes(make, jobs, workers):
            written += chunk
            bar.update(len(chunk))
    return written


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Group jobs; a volume is not torn, so that one process reads it once."""
    chunk: list[Job] = []
    for _, same in itertools.groupby(jobs, lambda job: job.origin):
        for job in same:
            if len(chunk) >= _LARGEST_CHUNK:
                yield chunk
                chunk = []
            chunk.append(job)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _make_all(chunk: list[Job], folder: Path) -> list[Written]:
    return [job.make(folder / job.image) for job in chunk]


def _in_processes(
    make: Callable[[list[Job]], list[Written]], jobs: Sequence[Job], workers: int
) -> Iterator[list[Written]]:
    """Yield the results of each chunk, in order."""
    # Spawned, not forked: a forked child of a process that runs threads (torch) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=leave_interrupts_alone)
    try:
        yield from pool.map(make, _chunks(jobs))
    except BrokenProcessPool as error:
        raise InputError(
            "A process that writes images was ended from outside",
            got=error,
            remedy="it may have run out of memory: give a smaller --num_workers",
        ) from error
    finally:  # no process writes on behind our back, also when the loop is left early
        pool.shutdown(wait=True, cancel_futures=True)


def write_description(
    folder: Path, spec: DataSetSpec, rows: pd.DataFrame, done: dict[str, Any],
    files: Sequence[SourceFile], notes: Sequence[str],
) -> None:  # fmt: skip
    """Write ``dataset.json``: what the data set is, and what was done to it."""
    counts = {
        split: {
            label or "all": {"images": images, "patients": patients}
            for label, (images, patients) in by_class.items()
        }
        for split, by_class in count(rows).items()
    }
    versions = {name: version(name) for name in _SOFTWARE}
    facts = ("name", "task", "licence", "where", "citation")
    description = {
        "format": FORMAT,
        **{fact: getattr(spec, fact) for fact in facts},
        "counts": counts,
        "done": done,
        "source": [file._asdict() for file in files],
        "notes": list(notes),
        "versions": {"python": platform.python_version(), **versions},
    }
    text = json.dumps(description, indent=2, ensure_ascii=False)
    # A folder's name need not be UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    write_text(folder / DESCRIPTION, text + "\n")


# ---- its place


def check_target(target: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Check that a data set may be written.

    Raises:
        InputError: If something is there that is not to be replaced, or no data set; or if the
            output and the download lie within each other.
    """
    place = target.resolve()
    for source in sources:
        given = source.resolve()
        if place.is_relative_to(given) or given.is_relative_to(place):
            raise InputError(
                "--output and --source lie within each other",
                got=f"{target} and {source}",
                remedy="choose another --output",
            )
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise InputError(
            f"There is something at {target} already",
            remedy="choose another --output, or replace it with --overwrite",
        )
    there = {path.name for path in target.iterdir()} if target.is_dir() else {"a file"}
    if target.is_symlink() or (there and not there & {*SPLITS, DESCRIPTION}):
        raise InputError(
            f"{target} is no data set, and is not replaced",
            got="a link" if target.is_symlink() else shorten(sorted(there)),
            expected="train, val, test",
            remedy="remove it yourself, or choose another --output",
        )


@contextmanager
def work_folder(output: Path, name: str) -> Iterator[Path]:
    """Make a hidden folder for all that is unfinished, and remove it at the end.

    What a killed run leaves is never taken for a data set: nothing lies in it directly.

    Raises:
        InputError: If it cannot be made.
    """
    missing = [path for path in (output, *output.parents) if not path.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=output))
    except OSError as error:
        raise InputError(f"Nothing can be written to {output}", got=error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in missing:  # an --output made for nothing goes as well
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def put_in_place(finished: Path, target: Path) -> None:
    """Move a finished data set to its place; an old one there is replaced only now."""
    old = finished.with_name(f"{finished.name}-old")
    try:
        if target.exists():
            target.rename(old)
        finished.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    # The old one lies in the work folder now and goes with it.
