"""A data set appears in its place when it is complete, and not before."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from linprobe.prepare.splits import SPLITS
from retfiner.common.errors import InputError, shorten

DESCRIPTION = "dataset.json"
"""Beside the splits: what the data set is and what was done to it."""


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

    Yields:
        The folder.

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
