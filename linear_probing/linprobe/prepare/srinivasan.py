"""Srinivasan 2014 (Duke): AMD, DME or normal, 45 volumes of a Heidelberg Spectralis.

As downloaded (several archives)::

    Publication_Dataset/{AMD,DME,NORMAL}<n>/TIFFs/8bitTIFFs/001.tif ...

All B-scans are used: 45 central ones alone would teach nothing. Images elsewhere below a volume are
copies at another depth of gray values, left out where ``8bitTIFFs`` is there.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import IMAGES, list_files, scan_order
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options
from linprobe.prepare.volumes import read_gray

CLASSES = ("AMD", "DME", "NORMAL")
PIXELS = "8bittiffs"
_VOLUME = re.compile(r"(AMD|DME|NORMAL)[ _-]*(\d+)", re.IGNORECASE)


def find(folder: Path, _options: Options) -> Listing:
    """Find all B-scans of all volumes."""
    files = list_files(folder, IMAGES)
    volumes: dict[tuple[str, int] | None, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        volumes[_volume_of(path)].append(path)
    unknown = [str(path) for path in volumes.pop(None, [])]
    bscans: list[BScan] = []
    n_copies = 0
    for volume, paths in volumes.items():
        label, number = volume or ("", 0)
        main = [p for p in paths if PIXELS in map(str.casefold, p.parts)] or paths
        n_copies += len(paths) - len(main)
        for path in scan_order(main):
            name = f"{label}{number}_{path.stem}"
            read = partial(read_gray, folder / path)
            bscans.append(BScan(name, label, f"{label}{number}", str(path), read))
    note = f"{n_copies} images outside of 8bitTIFFs left out: copies of the same B-scans."
    left_out = LeftOut("images are of no volume", unknown, len(files), "give this data set alone")
    counts = Counter(volume[0] for volume in volumes if volume)
    return Listing(bscans, [note] * bool(n_copies), [left_out], counts)


def _volume_of(path: PurePosixPath) -> tuple[str, int] | None:
    for part in reversed(path.parts[:-1]):
        match = _VOLUME.fullmatch(part)
        if match is not None:
            return match[1].upper(), int(match[2])
    return None


SPEC = DataSetSpec(
    name="Srinivasan",
    task="AMD, DME or normal",
    classes=CLASSES,
    licence="research use (no licence is stated with the data)",
    where="https://people.duke.edu/~sf59/Srinivasan_BOE_2014_dataset.htm",
    citation=(
        "Srinivasan et al.: Fully automated detection of diabetic macular edema and dry "
        "age-related macular degeneration from optical coherence tomography images. "
        "Biomedical Optics Express 5(10), 3568-3577, 2014"
    ),
    patients="volume",
    find=find,
    layout="{AMD,DME,NORMAL}<n>/TIFFs/8bitTIFFs/<n>.tif",
    published=dict.fromkeys(CLASSES, 15),
    unit="volumes",
    zero_borders=True,
)
