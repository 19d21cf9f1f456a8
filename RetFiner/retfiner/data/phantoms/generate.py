"""OCT phantoms: generated B-scans with reports and labels, to try everything without patients.

``python -m retfiner.data.phantoms --output DIR`` writes

- ``images/P0001_OD_v1.png`` ...: B-scans, 8-bit grayscale;
- ``pairs.csv``: ``image,report,patient_id,eye``, ``image`` relative to ``DIR``;
- ``findings.json``: image -> list of ``{"finding", "box"}``, boxes in pixels
  ``[row0, col0, row1, col1]``;
- ``tasks/<Task>/{train,val,test}/<Class>/*.png``: labelled sets for four probing tasks, whose
  patients are in no other split and not among the pairs;
- with ``--exams N``, ``volumes/P0001_OD_v1.npz`` ...: N B-scans an eye, (N, H, W), from below the
  fovea upwards; ``exams.csv``: ``image,report,patient_id,exam,eye``, a row a volume, whose report
  says where findings lie; ``exams.json``: exam -> list of ``{"finding", "x_um", "y_um",
  "slices"}``;
- ``phantoms.json``: the settings, written last, so that a complete folder is known as such.

Everything follows from the seed alone: not from the number of workers, nor from the order of work.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.common.files import write_text
from retfiner.common.processes import available_cores, in_processes
from retfiner.common.progress import track
from retfiner.data.phantoms.cohort import make_cohort, make_exams, stream
from retfiner.data.phantoms.optics import DEFAULT_SIZE, Size, check_size, draw
from retfiner.data.phantoms.reports import describe
from retfiner.data.phantoms.scene import Scan
from retfiner.data.phantoms.tasks import TASKS, make_task

VERSION = 2  # raised whenever the same settings come to draw other pictures
MARKER, UNFINISHED = "phantoms.json", "phantoms.unfinished.json"
COLUMNS = ("image", "report", "patient_id", "eye")
EXAM_COLUMNS = ("image", "report", "patient_id", "exam", "eye")
Job = TypeVar("Job")
SPLITS = ("train", "val", "test")
PAIR_IMAGE, _PAIR_REPORT, _TASK_IMAGE = 10, 11, 12  # purposes of random streams
_EXAM_IMAGE, _EXAM_REPORT = 13, 14
FIELD_HEIGHT_UM = 4800.0
"""Height of the field that a volume's B-scans cover."""


class _Job(NamedTuple):
    """One picture to draw and where to put it; ``purpose`` names its random stream."""

    path: Path
    scan: Scan
    purpose: tuple[int, ...]


def _draw_file(job: _Job, seed: int, size: Size) -> list[dict[str, Any]]:
    drawing = draw(job.scan, stream(seed, *job.purpose), size)
    Image.fromarray(drawing.image).save(job.path, compress_level=3)
    return [{"finding": finding.kind, "box": list(box)} for finding, box in drawing.boxes]


def _draw_files(
    jobs: Sequence[_Job], seed: int, size: Size, workers: int, label: str
) -> list[list[dict[str, Any]]]:
    """Draw all pictures, in this process or in several, and return the boxes in order."""
    for folder in {job.path.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    return _drawn(partial(_draw_file, seed=seed, size=size), jobs, workers, label)


def _drawn(
    work: Callable[[Job], list[Any]], jobs: Sequence[Job], workers: int, label: str
) -> list[list[Any]]:
    workers = workers or available_cores()
    if workers == 1:
        return list(track(map(work, jobs), label, len(jobs)))
    boxes = in_processes(work, jobs, workers, remedy="a smaller --workers", at_once=16)
    return list(track(boxes, label, len(jobs)))


def write_pairs(
    output: Path, n_patients: int, seed: int = 0, *, size: Size = DEFAULT_SIZE, workers: int = 1
) -> None:
    """Write B-scans with their reports; see :func:`write_phantoms`."""
    scans = make_cohort(n_patients, seed)
    names = [f"images/{scan.name}.png" for scan in scans]
    jobs = [
        _Job(output / name, scan, (PAIR_IMAGE, index))
        for index, (name, scan) in enumerate(zip(names, scans, strict=True))
    ]
    boxes = _draw_files(jobs, seed, size, workers, "image-report pairs")
    places = dict(zip(names, boxes, strict=True))
    write_text(output / "findings.json", json.dumps(places, indent=1) + "\n")
    rows = [
        (name, describe(scan, stream(seed, _PAIR_REPORT, index)), scan.patient_id, scan.eye)
        for index, (name, scan) in enumerate(zip(names, scans, strict=True))
    ]
    _write_table(output / "pairs.csv", COLUMNS, rows)


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([columns, *rows])
    write_text(path, lines.getvalue())


def heights_um(slices: int) -> list[float]:
    """Say how far above the fovea each B-scan of a volume lies, in µm."""
    return np.linspace(-FIELD_HEIGHT_UM / 2, FIELD_HEIGHT_UM / 2, slices).tolist()


def _draw_volume(job: tuple[Path, Scan, int], seed: int, size: Size, slices: int) -> list[Any]:
    """Draw a volume, and say which of its B-scans show each of its findings."""
    path, scan, index = job
    shown = [scan.at(height) for height in heights_um(slices)]
    images = [
        draw(one, stream(seed, _EXAM_IMAGE, index, n), size).image for n, one in enumerate(shown)
    ]
    np.savez(path, bscans=np.stack(images))
    return [
        {
            "finding": finding.kind,
            "x_um": finding.position_um,
            "y_um": finding.y_um,
            "slices": [n for n, one in enumerate(shown) if finding.kind in one.kinds],
        }
        for finding in scan.findings
    ]


def write_exams(
    output: Path,
    n_patients: int,
    slices: int,
    seed: int = 0,
    *,
    size: Size = DEFAULT_SIZE,
    workers: int = 1,
) -> None:
    """Write a volume of so many B-scans for each eye, with a report; see :func:`write_phantoms`."""
    scans = make_exams(n_patients, seed, 0.45 * FIELD_HEIGHT_UM)
    (output / "volumes").mkdir(parents=True, exist_ok=True)
    names = [f"volumes/{scan.name}.npz" for scan in scans]
    jobs = [(output / names[i], scan, i) for i, scan in enumerate(scans)]
    work = partial(_draw_volume, seed=seed, size=size, slices=slices)
    found = _drawn(work, jobs, workers, "volumes")
    places = {scan.name: shown for scan, shown in zip(scans, found, strict=True)}
    write_text(output / "exams.json", json.dumps(places, indent=1) + "\n")
    reports = [describe(scan, stream(seed, _EXAM_REPORT, i)) for i, scan in enumerate(scans)]
    rows = [
        (name, report, scan.patient_id, scan.name, scan.eye)
        for name, report, scan in zip(names, reports, scans, strict=True)
    ]
    _write_table(output / "exams.csv", EXAM_COLUMNS, rows)


def write_tasks(
    output: Path,
    images: tuple[int, int, int],
    seed: int = 0,
    *,
    size: Size = DEFAULT_SIZE,
    workers: int = 1,
) -> None:
    """Write ``<Task>/{train,val,test}/<Class>/*.png``; see :func:`write_phantoms`."""
    jobs = []
    for number, task in enumerate(TASKS):
        for split, (name, count) in enumerate(zip(SPLITS, images, strict=True)):
            for index, (label, scan) in enumerate(make_task(task, count, seed, split)):
                path = output / task / name / label / f"{scan.name}.png"
                jobs.append(_Job(path, scan, (_TASK_IMAGE, number, split, index)))
    _draw_files(jobs, seed, size, workers, "probing tasks")


def write_phantoms(
    output: Path | str,
    n_patients: int = 430,
    images: tuple[int, int, int] = (160, 80, 160),
    seed: int = 0,
    *,
    size: Size = DEFAULT_SIZE,
    workers: int = 1,
    exams: int = 0,
) -> Path:
    """Write pairs and tasks, or reuse a complete folder that was written with the same settings.

    Args:
        output: Folder to write to: new, empty, or written by this function before. One that was
            left unfinished is written anew.
        n_patients: Number of patients among the pairs, about 3.5 scans each.
        images: Number of training, validation and test images of each task.
        seed: Any non-negative integer.
        size: Height and width of the B-scans in pixels.
        workers: Processes that draw; 0 means one per available core. Does not change the result.
        exams: B-scans of the volumes that are written as well; 0 for none.

    Raises:
        InputError: When the folder holds phantoms of other settings, or other files; or for
            settings out of range. Nothing is written then.
    """
    _check(n_patients, images, seed, size, workers, exams)
    output = Path(output)
    settings = {
        "version": VERSION,
        "n_patients": n_patients,
        "images": list(images),
        "seed": seed,
        "size": list(size),
    }
    settings |= {"exams": exams} if exams else {}
    if _is_complete(output, settings):
        return output
    for leftover in (output / "images", output / "tasks", output / "volumes"):
        if leftover.exists():
            shutil.rmtree(leftover)
    write_text(output / UNFINISHED, json.dumps(settings) + "\n")
    write_pairs(output, n_patients, seed, size=size, workers=workers)
    write_tasks(output / "tasks", images, seed, size=size, workers=workers)
    if exams:
        write_exams(output, n_patients, exams, seed, size=size, workers=workers)
    write_text(output / MARKER, json.dumps(settings) + "\n")
    (output / UNFINISHED).unlink()
    return output


def _check(
    n_patients: int,
    images: tuple[int, int, int],
    seed: int,
    size: Size,
    workers: int,
    exams: int,
) -> None:
    """Refuse settings out of range before anything is written."""
    check_size(size)
    most = max(len(recipes) for recipes, _ in TASKS.values())
    for name, value, least in (
        ("patients", n_patients, 1),
        ("images in every split of a task, one for each class", min(images), most),
        ("seed", seed, 0),
        ("workers", workers, 0),
        ("B-scans of a volume", exams, 0),
    ):
        if value < least:
            raise InputError(
                f"Phantoms need more: {name}.", got=value, expected=f"at least {least}"
            )


def _is_complete(output: Path, settings: dict[str, Any]) -> bool:
    """Say whether the folder holds these very phantoms; refuse one that holds anything else."""
    marker = output / MARKER
    if marker.is_file():
        written = marker.read_text(encoding="utf-8").strip()
        if written == json.dumps(settings):
            return True
        raise InputError(
            f"{output} already holds phantoms of other settings.",
            got=json.dumps(settings),
            expected=written,
            remedy="Choose another folder, or delete this one first.",
        )
    strange = output.is_file() or (output.is_dir() and any(output.iterdir()))
    if strange and not (output / UNFINISHED).is_file():
        raise InputError(
            f"{output} holds other files.",
            expected="a new or empty folder, or one written by this command",
            remedy="Choose another folder.",
        )
    return False
