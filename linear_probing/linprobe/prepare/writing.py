"""A data set on the disk: its images by all cores and little memory, and what it is."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from linprobe.prepare.borders import zero_white_borders
from linprobe.prepare.spec import DataSetSpec, GrayImage
from linprobe.prepare.tables import SPLITS, count
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import write_text
from retfiner.common.processes import in_processes
from retfiner.common.progress import progress

if TYPE_CHECKING:
    import pandas as pd

COMPRESSION = 4
"""Of PNG: speckle becomes no smaller with more, and is written in three quarters of the time."""
DESCRIPTION = "dataset.json"
"""Beside the splits: what the data set is and what was done to it."""
FORMAT = 1
"""Raised when a reader of ``dataset.json`` would have to know of a change."""

_CHUNK = 8  # files of a download that go to a process at once
_SOFTWARE = ("retfiner", "numpy", "scipy", "scikit-learn", "pillow")


class Job(NamedTuple):
    """An image to write: its place in the data set, where it comes from, and what reads it."""

    image: str
    source: str
    read: Callable[[], GrayImage]


class Written(NamedTuple):
    """What became of an image: hashes, and the share of it that was white border and was zeroed.

    The hash of the pixels, gray values and shape, depends on no compressor.
    """

    sha256: str
    pixels_sha256: str
    border: float = 0.0


def write_png(job: Job, folder: Path, *, zero_borders: bool) -> Written:
    """Read a B-scan and write it as an 8-bit grayscale PNG; an InputError where that fails."""
    image = job.read()
    if image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        raise InputError(
            f"{job.source} is no B-scan",
            got=f"{image.dtype} of shape {image.shape}",
            expected="uint8 of shape (H, W)",
        )
    border = 0.0
    if zero_borders:
        image, border = zero_white_borders(image)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=COMPRESSION)
    try:
        (folder / job.image).write_bytes(stream.getvalue())
    except OSError as error:
        raise InputError(
            f"{job.image} cannot be written below {folder}",
            got=error,
            remedy="see whether the disk is full; nothing of this data set is left behind",
        ) from error
    pixels = f"{image.shape[0]} {image.shape[1]} ".encode() + image.tobytes()
    of_file, of_pixels = (hashlib.sha256(c).hexdigest() for c in (stream.getvalue(), pixels))
    return Written(of_file, of_pixels, border)


def write_images(
    jobs: Sequence[Job], folder: Path, workers: int, *, zero_borders: bool
) -> list[Written]:
    """Write images, a few of them in memory at a time, and tell what became of each.

    Raises:
        InputError: If an image cannot be read or written, or a process died.
    """
    for parent in {(folder / job.image).parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    # A volume is not torn, so that one process reads it once.
    by_file = itertools.groupby(jobs, lambda job: job.source.partition("#")[0])
    groups = [list(same) for _, same in by_file]
    make = partial(_write_all, folder=folder, zero_borders=zero_borders)
    written: list[Written] = []
    with progress("writing images", len(jobs)) as bar:
        parts: Iterator[list[Written]] = map(make, groups)
        if workers > 1:
            parts = in_processes(
                make, groups, workers, remedy="a smaller --num_workers", at_once=_CHUNK
            )
        for part in parts:
            written += part
            bar.update(len(part))
    return written


def _write_all(jobs: list[Job], folder: Path, zero_borders: bool) -> list[Written]:
    return [write_png(job, folder, zero_borders=zero_borders) for job in jobs]


def write_description(
    folder: Path, spec: DataSetSpec, rows: pd.DataFrame, done: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]], notes: Sequence[str],
) -> None:  # fmt: skip
    """Write ``dataset.json``: what the data set is, and what was done to it."""
    counted = count(rows)
    counts = {split: counted.loc[split].to_dict("index") for split in SPLITS}
    facts = ("name", "task", "licence", "where", "citation")
    description = {
        "format": FORMAT,
        **{fact: getattr(spec, fact) for fact in facts},
        "counts": counts,
        "done": done,
        "source": list(files),
        "notes": list(notes),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in _SOFTWARE}},
    }
    text = json.dumps(description, indent=2, ensure_ascii=False)
    # A folder's name need not be UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    write_text(folder / DESCRIPTION, text + "\n")


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
