"""The order of things: download, B-scans, split, images, checks, and the data set in its place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from linprobe.prepare.archives import Source, open_source
from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.folder import NAME as OWN_FOLDER
from linprobe.prepare.ready_made import NEVER, find_ready_made
from linprobe.prepare.spec import BScan, DataSetSpec
from linprobe.prepare.splits import check_content, divide, repeat_split
from linprobe.prepare.tables import (
    SPLITS,
    identical_across_splits,
    read_split,
    shared_patients,
    split_rows,
    write_split,
)
from linprobe.prepare.writing import (
    Job,
    Plan,
    check_target,
    put_in_place,
    work_folder,
    write_description,
    write_images,
    write_png,
)
from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.files import file_sha256
from retfiner.common.patients import SPLIT_TABLE
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
        plan = _ready_made(config, spec, source) or _plan(config, spec, source)
        written = _write(config, plan, folder)
        write_split(folder, written)
        rows = read_split(folder / SPLIT_TABLE)
        if not plan.may_share:
            _prove_disjoint(rows)
        notes = [*plan.notes, *source.notes, *_leaks(rows), *_power(rows)]
        if plan.done.get("zero_borders"):
            plan.done["zeroed_borders"] = borders = int((written["border"] > 0).sum())
            notes.append(f"White borders were zeroed in {borders} of {len(rows)} images.")
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


def _ready_made(config: PrepareConfig, spec: DataSetSpec, source: Source) -> Plan | None:
    """Take a download that is in the probing layout as it is; None where it is not."""
    if {spec.name, config.name} & {*NEVER}:
        return None
    plan = find_ready_made(source.folder, spec)
    stray = config.given("bscan", "split", "seed", "split_file", "zero_borders", *_ONLY)
    if plan is not None and stray:
        raise InputError(
            f"{stray} would have no effect",
            got="a download that is in the probing layout already",
            remedy="leave it out, or give the data set as its authors published it",
        )
    return plan


def _plan(config: PrepareConfig, spec: DataSetSpec, source: Source) -> Plan:
    """List the B-scans of a download and decide where each goes."""
    options = config.options()
    with progress("looking through the download"):
        listing = spec.list_bscans(source.folder, options)
    bscans, notes = listing.bscans, list(listing.notes)
    zero = spec.zero_borders if config.zero_borders is None else config.zero_borders
    done: dict[str, Any] = {
        "files": "read and written as 8-bit grayscale PNG",
        "bscan": options.bscan if spec.volumes else None,
        "zero_borders": zero,
        "patients": spec.patients,
        **{
            name: as_plain(getattr(options, name))
            for name, owner in _ONLY.items()
            if owner in (spec.name, config.name)
        },
    }
    expected = None
    if config.split_file is not None:
        expected = read_split(config.split_file)
        bscans, more = repeat_split(bscans, expected, config.split_file)
        digest = file_sha256(config.split_file)
        done["split"] = {"rule": f"as in {config.split_file.name}", "sha256": digest}
        splits = [bscan.split or "" for bscan in bscans]
    else:
        splits, more, done["split"] = _divide(config, spec, bscans)
    jobs, rows = [], []
    for bscan, split in zip(bscans, splits, strict=True):
        image = f"{split}/{bscan.label}/{bscan.name}.png"
        make = partial(write_png, read=bscan.read, zero_borders=zero, source=bscan.source)
        jobs.append(Job(image, make, bscan.source.partition("#")[0]))
        rows.append((image, bscan.label, bscan.patient or "", split, bscan.source))
    told, laid = [*notes, *more], split_rows(rows, [bscan.about for bscan in bscans])
    return Plan(jobs, laid, told, done, expected is not None, expected, listing.pictures)


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


def _write(config: PrepareConfig, plan: Plan, folder: Path) -> pd.DataFrame:
    """Write the images; return their rows with hashes, and what share was zeroed ``border``."""
    workers = config.num_workers
    if workers is None:
        workers = available_cores() if len(plan.jobs) > _FEW else 0
    written = write_images(plan.jobs, folder, workers)
    for name, draw in plan.pictures.items():
        Image.fromarray(draw()).save(folder / name, quality=95)
    rows = plan.rows.assign(
        sha256=[one.sha256 for one in written],
        pixels_sha256=[one.pixels_sha256 or "" for one in written],
        border=[one.border for one in written],
    )
    if config.split_file is not None and plan.expected is not None:
        check_content(plan.expected, rows, config.split_file)
    return rows


def _prove_disjoint(rows: pd.DataFrame) -> None:
    """Check on what was written that no patient is in two splits."""
    shared = shared_patients(rows)
    if shared:
        raise InputError(
            "The split that was made shares patients and is not written",
            got=shorten(shared),
            expected="each patient in one of train, val and test",
            remedy="please report this with the command you gave",
        )


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


def _leaks(rows: pd.DataFrame) -> list[str]:
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
