"""The order of things: download, B-scans, split, images, checks, and the data set in its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.describe import write_description
from linprobe.prepare.folder import NAME as OWN_FOLDER
from linprobe.prepare.placing import check_target, put_in_place, work_folder
from linprobe.prepare.ready_made import NEVER, ReadyMade, find_ready_made
from linprobe.prepare.repeating import check_content, repeat_split
from linprobe.prepare.source import Source, open_source
from linprobe.prepare.spec import BScan, DataSetSpec, Listing
from linprobe.prepare.splits import SPLITS, divide
from linprobe.prepare.table import (
    Row,
    identical_across_splits,
    prove_disjoint,
    read_table,
    shared_patients,
    write_table,
)
from linprobe.prepare.writing import Job, Written, write_images, write_png
from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.files import file_sha256
from retfiner.common.processes import available_cores
from retfiner.common.progress import progress

_ONLY = {
    "label": "NEHUT2D",
    "slice_axis": "Harvard_Glaucoma",
    "labels": OWN_FOLDER,
    "patient_regex": OWN_FOLDER,
}
"""Flags of a single data set."""
_FEW = 64  # images for which starting processes takes longer than the work


@dataclass(frozen=True)
class Prepared:
    """A data set that was written.

    Attributes:
        folder: It lies here.
        rows: Its images.
        notes: What a user must know.
    """

    folder: Path
    rows: list[Row]
    notes: list[str]


@dataclass(frozen=True)
class _Plan:
    """What is to be written; the lists have an item an image, ``rows`` without hashes yet."""

    jobs: list[Job]
    rows: list[Row]
    notes: list[str]
    done: dict[str, Any]
    expected: list[Row]
    may_share: bool


@explained_faults()
def prepare(config: PrepareConfig, spec: DataSetSpec, aliases: tuple[str, ...] = ()) -> Prepared:
    """Write ``<output>/<name>/{train,val,test}/<Class>/`` from a download.

    Nothing is left behind by an error or an interruption, and a data set that is there stays until
    the new one is complete.

    Raises:
        InputError: For settings of no effect, and for whatever is wrong with the download.
    """
    _check_flags(config, spec)
    target = config.output / spec.name
    check_target(target, config.source, overwrite=config.overwrite)
    with (
        work_folder(config.output, spec.name) as work,
        open_source(config.source, work) as source,
    ):
        folder = work / spec.name
        folder.mkdir()
        names = (spec.name, *aliases)
        ready = None if spec.name in NEVER else find_ready_made(source.folder, names)
        if ready is not None:
            plan = _plan_ready_made(config, spec, ready)
        else:
            plan = _plan(config, spec, source)
        rows, borders = _write(config, plan, folder)
        write_table(folder, rows)
        rows = read_table(folder / "split.csv") if plan.may_share else prove_disjoint(folder)
        notes = [*plan.notes, *source.notes, *_leaks(rows), _power(rows)]
        if borders is not None:
            notes.append(f"White borders were zeroed in {borders} of {len(rows)} images.")
            plan.done["zeroed_borders"] = borders
        write_description(folder, spec, rows, plan.done, source.files, notes)
        put_in_place(folder, target)
    return Prepared(target, rows, notes)


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


def _plan(config: PrepareConfig, spec: DataSetSpec, source: Source) -> _Plan:
    """List the B-scans of a download and decide where each goes."""
    with progress("looking through the download"):
        listing = spec.list_bscans(source.folder, config.options())
    _check_listing(listing, spec)
    bscans, notes = listing.bscans, list(listing.notes)
    zero = spec.zero_borders if config.zero_borders is None else config.zero_borders
    done: dict[str, Any] = {
        "files": "read and written as 8-bit grayscale PNG",
        "bscan": config.options().bscan if spec.volumes else None,
        "zero_borders": zero,
        "patients": spec.patients,
        **{
            name: as_plain(getattr(config.options(), name))
            for name, owner in _ONLY.items()
            if owner in (spec.name, config.name)
        },
    }
    expected: list[Row] = []
    if config.split_file is not None:
        repeated = repeat_split(bscans, config.split_file)
        bscans, expected = repeated.bscans, repeated.rows
        splits = [row.split for row in expected]
        notes += repeated.notes
        digest = file_sha256(config.split_file)
        done["split"] = {"rule": f"as in {config.split_file.name}", "sha256": digest}
    else:
        splits, more, done["split"] = _divide(config, spec, bscans)
        notes += more
    jobs, rows = [], []
    for bscan, split in zip(bscans, splits, strict=True):
        image = f"{split}/{bscan.label}/{bscan.name}.png"
        make = partial(write_png, read=bscan.read, zero_borders=zero, source=bscan.source)
        jobs.append(Job(image, make, bscan.source.partition("#")[0]))
        rows.append(Row(image, bscan.label, bscan.patient or "", split, bscan.source))
    return _Plan(jobs, rows, notes, done, expected, config.split_file is not None)


def _divide(
    config: PrepareConfig, spec: DataSetSpec, bscans: Sequence[BScan]
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Make a split; return it, notes, and what dataset.json says of it."""
    shares = list(spec.split) if config.split is None else config.split
    seed = 0 if config.seed is None else config.seed
    division = divide(bscans, shares, seed)
    stray = config.given("split", "seed")
    if stray and not division.seeded:
        raise InputError(
            f"{stray} would have no effect",
            got=f"{spec.name}, which comes with a split of its own",
            remedy="leave it out, or give a split with --split_file",
        )
    made: dict[str, Any] = {"rule": division.rule}
    if division.seeded:
        made |= {"shares": dict(zip(SPLITS, shares, strict=True)), "seed": seed}
    return division.splits, division.notes, made


def _check_listing(listing: Listing, spec: DataSetSpec) -> None:
    """Check what a data set's own file found."""
    counts = Counter(bscan.label for bscan in listing.bscans)
    classes = spec.classes or tuple(sorted(counts))
    absent = [label for label in classes if not counts[label]]
    if absent:
        raise InputError(
            f"The download has no image of {shorten(absent)}",
            got=shorten([f"{count} of {label}" for label, count in sorted(counts.items())])
            or "no image at all",
            expected=f"images of {', '.join(spec.classes)}",
            remedy=f"see that --source is the whole download of {spec.name}: {spec.where}",
        )
    unknown = sorted(set(counts) - set(classes))
    if unknown:
        raise InputError(
            f"The download has classes that {spec.name} does not have",
            got=shorten(unknown),
            expected=", ".join(spec.classes),
        )
    # Two names that differ in their case alone are one file on many disks.
    names = Counter(bscan.name.lower() for bscan in listing.bscans)
    twice = sorted(name for name, count in names.items() if count > 1)
    odd = sorted(b.name for b in listing.bscans if not re.fullmatch(r"[\w\-.]+", b.name, re.ASCII))
    if twice or odd:
        raise InputError(
            f"Images of {spec.name} would get names that cannot be used",
            got=f"twice: {shorten(twice)}" if twice else shorten(odd),
            expected="a name an image, of letters, digits and -_.",
        )


def _plan_ready_made(config: PrepareConfig, spec: DataSetSpec, ready: ReadyMade) -> _Plan:
    """Take a download that is in the probing layout as it is."""
    stray = config.given("bscan", "split", "seed", "split_file", "zero_borders", *_ONLY)
    if stray:
        raise InputError(
            f"{stray} would have no effect",
            got=f"a download that is in the probing layout already, at {ready.folder.name}",
            remedy="leave it out, or give the data set as its authors published it",
        )
    notes = list(ready.notes)
    if set(ready.labels) != set(spec.classes):
        notes.append(
            f"Its classes are {shorten(sorted(set(ready.labels)))}; prepared from the authors' own "
            f"download they would be {shorten(sorted(spec.classes))}."
        )
    unknown = sum(not patient for patient in ready.patients)
    if unknown:
        notes.append(f"The patient of {unknown} of {len(ready.jobs)} images is not known.")
    rows = [
        Row(job.image, label, patient, split, job.origin)
        for job, label, patient, split in zip(
            ready.jobs, ready.labels, ready.patients, ready.splits, strict=True
        )
    ]
    done = {
        "files": "copied as they were, in the probing layout already",
        "patients": "as far as a table beside the images, or else their names, tell them",
        "split": {"rule": "the download's own"},
    }
    return _Plan(ready.jobs, rows, notes, done, [], True)


def _write(config: PrepareConfig, plan: _Plan, folder: Path) -> tuple[list[Row], int | None]:
    """Write the images; return their rows with hashes, and in how many borders were zeroed."""
    workers = config.num_workers
    if workers is None:
        workers = available_cores() if len(plan.jobs) > _FEW else 0
    written = write_images(plan.jobs, folder, workers)
    rows = [_with_hashes(row, result) for row, result in zip(plan.rows, written, strict=True)]
    if config.split_file is not None and plan.expected:
        check_content(plan.expected, rows, config.split_file)
    zeroed = sum(result.border > 0 for result in written)
    return rows, zeroed if plan.done.get("zero_borders") else None


def _with_hashes(row: Row, result: Written) -> Row:
    return Row(
        row.image,
        row.label,
        row.patient,
        row.split,
        row.source,
        result.sha256,
        result.pixels_sha256 or "",
    )


def _power(rows: Sequence[Row]) -> str:
    """Say what a test set of this size can show."""
    from linprobe.statistics import detectable_difference  # a second that --list need not wait for

    owners = {(row.label, row.patient or row.image) for row in rows if row.split == "test"}
    counts = Counter(label for label, _ in owners)
    least = 100 * detectable_difference(counts.values())
    return (
        f"The test set ({len({unit for _, unit in owners})} patients or, where they are unknown, "
        f"images) finds a change in balanced accuracy of {least:.1f} points four times of five; "
        "smaller ones mostly stay unseen."
    )


def _leaks(rows: Sequence[Row]) -> list[str]:
    """Say what is in several splits at once: patients of a split that was kept, same images."""
    notes = []
    shared = shared_patients(rows)
    if shared:
        notes.append(f"{len(shared)} patients are in several splits ({shorten(shared, 3)}).")
    identical = identical_across_splits(rows)
    if identical:
        notes.append(
            f"{identical} images are in several splits, byte for byte the same, under the names of "
            "different or unknown patients."
        )
    return notes
