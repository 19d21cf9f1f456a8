"""Noor Eye Hospital: AMD, DME or normal, 148 volumes of a Heidelberg Spectralis.

As downloaded, in one of several layouts that are about; any depth is accepted::

    AMD Part1/AMD (1).E2E/<visit>/Image 2.TIFF
    AMD/AMD (1)/Image (2).tiff
    Data/{AMD,DME,NORMAL}/<case>/*.TIFF

- Label: the class folder.
- Patient: the folder of the case, with the class, since each class counts from 1. Folders below it
  are visits, volumes of the same patient.
- B-scans: the central one of each volume, of 19 to 61; ``--bscan`` takes others.
- Split: ours, random by patient; the authors published none.

Traps: B-scans are in the order of the number in their name, ``Image 2`` before ``Image 10``. A
class may lie in several folders (``AMD Part1``, ``AMD Part2``); cases of the same name in them are
taken for one patient, which can only make the split stricter. A case is named like its class
(``AMD (1)``), so that a name with a number is a case. Some images are PNG.
The licence is not stated with the data.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from linprobe.prepare.finding import (
    IMAGES,
    chosen_scans,
    compare_counts,
    list_files,
    renamed,
    require_classes,
    safe_stem,
    scan_order,
    tolerate,
)
from linprobe.prepare.pixels import read_gray
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options

CLASSES = ("AMD", "DME", "NORMAL")
VOLUMES = {"AMD": 48, "DME": 50, "NORMAL": 50}
_CLASS_FOLDER = re.compile(
    r"(?P<label>AMD|DME|NORMAL)(?:[ _-]*part[ _-]*\d+)?(?P<case>[ _-]*\(?\d+\)?.*)?", re.IGNORECASE
)


class Case(NamedTuple):
    """Whose volume it is: a class, and the name of a folder below it."""

    label: str
    name: str


def list_bscans(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume.

    Raises:
        InputError: If a class or a B-scan is missing.
    """
    files = list_files(folder, IMAGES)
    volumes: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    cases: dict[PurePosixPath, Case] = {}
    unknown = []
    for path in files:
        if path.parent not in cases:
            case = case_of(path.parent.parts)
            if case is not None:
                cases[path.parent] = case
        if path.parent in cases:
            volumes[path.parent].append(path)
        else:
            unknown.append(str(path))
    require_classes(
        {case.label for case in cases.values()}, CLASSES, folder, "{AMD,DME,NORMAL}/<case>/*.TIFF"
    )
    notes = tolerate(
        "images lie in no folder of a case", unknown, len(files), "give this data set alone"
    )
    bscans: list[BScan] = []
    for place, paths in volumes.items():
        bscans += _bscans_of(folder, place, cases[place], paths, options)
    counts = Counter(case.label for case in set(cases.values()))
    return Listing(renamed(bscans), notes + compare_counts(counts, VOLUMES, "cases"))


def case_of(parts: Iterable[str]) -> Case | None:
    """Tell class and case from the folders an image lies in, None if they do not say."""
    label: str | None = None
    for part in parts:
        match = _CLASS_FOLDER.fullmatch(part)
        if match is not None and match["case"] is not None:
            return Case(match["label"].upper(), _case_name(part))
        if match is not None:
            label = match["label"].upper()
        elif label is not None:
            return Case(label, _case_name(part))
    return None


def _case_name(part: str) -> str:
    return safe_stem(re.sub(r"\.e2e$", "", part, flags=re.IGNORECASE))


def _bscans_of(
    folder: Path, place: PurePosixPath, case: Case, paths: list[PurePosixPath], options: Options
) -> list[BScan]:
    ordered = scan_order(paths)
    own = case.name.upper().startswith(case.label)
    patient = case.name if own else f"{case.label}_{case.name}"
    visit = "" if case.name == _case_name(place.name) else f"_{safe_stem(place.name)}"
    return [
        BScan(
            name=f"{patient}{visit}" + (f"_{index:03d}" if options.bscan == "all" else ""),
            label=case.label,
            patient=patient.upper(),
            source=str(ordered[index]),
            read=partial(read_gray, folder / ordered[index]),
        )
        for index in chosen_scans(options.bscan, len(ordered), str(place))
    ]


SPEC = DataSetSpec(
    name="Noor_Eye_Hospital",
    task="AMD, DME or normal",
    classes=CLASSES,
    licence="not stated",
    where=(
        "https://hrabbani.site123.me/available-datasets/"
        "dataset-for-oct-classification-50-normal-48-amd-50-dme"
    ),
    citation=(
        "Rasti et al.: Macular OCT Classification Using a Multi-Scale Convolutional Neural "
        "Network Ensemble. IEEE Transactions on Medical Imaging 37(4), 1024-1034, 2018"
    ),
    patients="folder of the case, with its class",
    list_bscans=list_bscans,
    volumes=True,
)
