"""Noor Eye Hospital: AMD, DME or normal, 148 volumes of a Heidelberg Spectralis.

As downloaded, in one of several layouts that are about; any depth is accepted::

    AMD Part1/AMD (1).E2E/<visit>/Image 2.TIFF
    AMD/AMD (1)/Image (2).tiff
    Data/{AMD,DME,NORMAL}/<case>/*.TIFF

Cases of the same name in several folders of a class are taken for one patient, which can only make
the split stricter. A case is named like its class (``AMD (1)``): a name with a number is a case.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from linprobe.prepare.files import IMAGES, list_files, safe_stem, scan_order
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options, bscans_of
from linprobe.prepare.volumes import slices_of_images, without_fundus
from retfiner.common.progress import track

CLASSES = ("AMD", "DME", "NORMAL")
_CLASS_FOLDER = re.compile(
    r"(?P<label>AMD|DME|NORMAL)(?:[ _-]*part[ _-]*\d+)?(?P<case>[ _-]*\(?\d+\)?.*)?", re.IGNORECASE
)


class Case(NamedTuple):
    """Whose volume it is: a class, and the name of a folder below it."""

    label: str
    name: str


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume.

    Raises:
        InputError: If a B-scan is missing.
    """
    files = list_files(folder, IMAGES)
    volumes: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        volumes[path.parent].append(path)
    cases = {place: case_of(place.parts) for place in volumes}
    unknown = [str(path) for path in files if cases[path.parent] is None]
    bscans: list[BScan] = []
    n_fundus = 0
    title = "looking into volumes"
    for place, paths in track(volumes.items(), title, len(volumes), "volume"):
        case = cases[place]
        if case is None:
            continue
        ordered = scan_order(without_fundus(folder, paths))
        n_fundus += len(paths) - len(ordered)
        own = case.name.upper().startswith(case.label)
        patient = case.name if own else f"{case.label}_{case.name}"
        visit = "" if case.name == _case_name(place.name) else f"_{place.name}"
        slices, name = slices_of_images(folder, ordered), f"{patient}{visit}"
        bscans += bscans_of(slices, options.bscan, str(place), name, case.label, patient.upper())
    note = f"{n_fundus} images that are no B-scans (fundus, by name or another size) left out."
    problem, remedy = "images lie in no folder of a case", "give this data set alone"
    left_out = LeftOut(problem, unknown, len(files), remedy)
    counts = Counter(case.label for case in set(cases.values()) if case is not None)
    return Listing(bscans, [note] * bool(n_fundus), [left_out], counts)


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
    find=find,
    layout="{AMD,DME,NORMAL}/<case>/*.TIFF",
    published={"AMD": 48, "DME": 50, "NORMAL": 50},
    unit="cases",
    volumes=True,
)
