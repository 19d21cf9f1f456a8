"""The order of things: download, B-scans, split, images, checks, and the data set in its place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from linprobe.prepare.archives import open_source
from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.folder import NAME as OWN_FOLDER
from linprobe.prepare.spec import DataSetSpec, Listing
from linprobe.prepare.splits import Division, divide
from linprobe.prepare.tables import (
    SPLITS,
    shared_patients,
    split_rows,
    write_split,
)
from linprobe.prepare.writing import Job, check_target, write_description, write_images
from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.processes import available_cores
from retfiner.common.progress import progress

if TYPE_CHECKING:
    import pandas as pd

_ONLY = {
    "label": "NEHUT2D",
    "slice_axis": "Harvard_Glaucoma",
    "labels": OWN_FOLDER,
    "patient_regex": OWN_FOLDER,
}
"""Flags of a single data set."""
_FEW = 64  # images for which starting processes takes longer than the work


class Prepared(NamedTuple):
    """A data set that was written: where, its ``split.csv``, and what a user must know."""

    folder: Path
    rows: pd.DataFrame
    notes: list[str]


@explained_faults()
def prepare(config: PrepareConfig, spec: DataSetSpec) -> Prepared:
    """Write ``<output>/<name>/{train,val,test}/<Class>/`` from a download.

    A data set that is there stays until the new one is complete.

    Raises:
        InputError: For settings of no effect, and for whatever is wrong with the download.
    """
    _check_flags(config, spec)
    target = config.output / spec.name
    check_target(target, config.source, overwrite=config.overwrite)
    with _work_folder(config.output, spec.name) as work, open_source(config.source, work) as source:
        with progress("looking through the download"):
            listing = spec.list_bscans(source.folder, config.options())
        division, done = _divide(config, spec, listing)
        folder = work / spec.name
        folder.mkdir()
        rows = _write(config, listing, division, folder, zero_borders=done["zero_borders"])
        write_split(folder, rows)
        notes = [*listing.notes, *division.notes, *_power(rows)]
        if done["zero_borders"]:
            done["zeroed_borders"] = borders = int((rows["border"] > 0).sum())
            notes.append(f"White borders were zeroed in {borders} of {len(rows)} images.")
        write_description(folder, spec, rows, done, source.files, notes)
        if target.exists():
            target.rename(work / "old")  # and goes with the work folder
        folder.rename(target)
    return Prepared(target, rows, notes)


@contextmanager
def _work_folder(output: Path, name: str) -> Iterator[Path]:
    """Make a hidden folder for all that is unfinished, and remove it at the end.

    What a killed run leaves is never taken for a data set: nothing lies in it directly.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{name}-", dir=output)
    except OSError as error:
        raise InputError(f"Nothing can be written to {output}", got=error) from error
    with folder as place:
        yield Path(place)


def _check_flags(config: PrepareConfig, spec: DataSetSpec) -> None:
    """Refuse flags that this data set knows nothing of."""
    stray = [
        f"--{name}"
        for name, owner in _ONLY.items()
        if config.given(name) and owner not in (spec.name, config.name)
    ]
    if config.given("bscan") and not spec.volumes:
        stray.append("--bscan")
    if stray:
        raise InputError(
            f"{', '.join(stray)} would have no effect",
            got=spec.name,
            remedy="leave it out: --help says which data sets it is for",
        )


def _divide(
    config: PrepareConfig, spec: DataSetSpec, listing: Listing
) -> tuple[Division, dict[str, Any]]:
    """Make a split; return it, and what dataset.json says was done."""
    options = config.options()
    shares = list(spec.split) if config.split is None else config.split
    seed = 0 if config.seed is None else config.seed
    division = divide(listing.bscans, shares, seed)
    stray = config.given("split", "seed")
    if stray and not division.seeded:
        raise InputError(
            f"{stray} would have no effect",
            got=f"{spec.name}, which comes with a split of its own",
            remedy="leave it out",
        )
    split: dict[str, Any] = {"rule": division.rule}
    if division.seeded:
        split |= {"shares": dict(zip(SPLITS, shares, strict=True)), "seed": seed}
    return division, {
        "files": "read and written as 8-bit grayscale PNG",
        "bscan": options.bscan if spec.volumes else None,
        "zero_borders": spec.zero_borders if config.zero_borders is None else config.zero_borders,
        "patients": spec.patients,
        **{
            name: as_plain(getattr(options, name))
            for name, owner in _ONLY.items()
            if owner in (spec.name, config.name)
        },
        "split": split,
    }


def _write(
    config: PrepareConfig, listing: Listing, division: Division, folder: Path, *, zero_borders: bool
) -> pd.DataFrame:
    """Write the images; return their rows with hashes, and what share was zeroed ``border``.

    No patient is in two splits: that is proved on what was written.
    """
    pairs = list(zip(listing.bscans, division.splits, strict=True))
    images = [f"{split}/{bscan.label}/{bscan.name}.png" for bscan, split in pairs]
    jobs = [Job(i, b.source, b.read) for i, b in zip(images, listing.bscans, strict=True)]
    workers = config.num_workers
    if workers is None:
        workers = available_cores() if len(jobs) > _FEW else 0
    written = write_images(jobs, folder, workers, zero_borders=zero_borders)
    for name, draw in listing.pictures.items():
        Image.fromarray(draw()).save(folder / name, quality=95)
    rows = [
        (image, bscan.label, bscan.patient or "", split, bscan.source)
        for image, (bscan, split) in zip(images, pairs, strict=True)
    ]
    laid = split_rows(rows, [bscan.about for bscan in listing.bscans])
    laid[list(written[0]._fields)] = written
    shared = shared_patients(laid)
    if shared:
        raise InputError(
            "The split that was made shares patients and is not written",
            got=shorten(shared),
            expected="each patient in one of train, val and test",
            remedy="please report this with the command you gave",
        )
    return laid


def _power(rows: pd.DataFrame) -> list[str]:
    """Say what a test set of this size can show, of classes."""
    from linprobe.statistics import detectable_difference  # a second that --list need not wait for

    test = rows[rows["split"] == "test"]
    if rows["class"].nunique() < 2:
        return []
    units = test["patient"].where(test["patient"] != "", test["image"])
    least = 100 * detectable_difference(units.groupby(test["class"]).nunique())
    return [
        f"The test set ({units.nunique()} patients or, where they are unknown, "
        f"images) finds a change in balanced accuracy of {least:.1f} points four times of five; "
        "smaller ones mostly stay unseen."
    ]
