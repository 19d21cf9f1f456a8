"""OCTID: five classes, about 570 B-scans of a Zeiss Cirrus HD-OCT, patients not published.

As downloaded (an archive a class)::

    Normal-Retinal-OCT-images/NORMAL1.jpeg ...
    Age-related-Macular-Degeneration-Retinal-OCT-images/AMRD1.jpeg ...
    Central-serous-retinopathy-retinal-OCT-images/CSR1.jpeg ...
    Diabetic-Retinopathy-Retinal-OCT-Images/DR1.jpeg ...
    Macular-Hole-Retinal-OCT-images/MH1.jpeg ...
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import IMAGES, list_files, squeeze
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options
from linprobe.prepare.volumes import read_gray

CLASSES = ("AMD", "CSR", "DR", "MH", "NORMAL")
_FOLDERS = {
    "normalretinaloct": "NORMAL",
    "agerelatedmaculardegeneration": "AMD",
    "centralserousretinopathy": "CSR",
    "diabeticretinopathy": "DR",
    "macularhole": "MH",
}
_STEMS = {"NORMAL": "NORMAL", "AMRD": "AMD", "AMD": "AMD", "CSR": "CSR", "DR": "DR", "MH": "MH"}
_STEM = re.compile(r"([A-Za-z]+)[ _()-]*\d+\)?")


def find(folder: Path, _options: Options) -> Listing:
    """Find the images of the five classes."""
    files = list_files(folder, IMAGES)
    bscans, unknown = [], []
    for path in files:
        match = _STEM.fullmatch(path.stem)
        by_folder, by_stem = _label_of_folder(path), _STEMS.get(match[1].upper()) if match else None
        label = by_folder or by_stem
        if label is None:
            unknown.append(str(path))
            continue
        bscans.append(BScan(path.stem, label, None, str(path), partial(read_gray, folder / path)))
    left_out = LeftOut("images belong to no class", unknown, len(files), "give this data set alone")
    return Listing(bscans, [], [left_out])


def _label_of_folder(path: PurePosixPath) -> str | None:
    for part in reversed(path.parts[:-1]):
        for beginning, label in _FOLDERS.items():
            if squeeze(part).startswith(beginning):
                return label
    return None


SPEC = DataSetSpec(
    name="OCTID",
    task="AMD, CSR, DR, macular hole or normal",
    classes=CLASSES,
    licence="CC BY 4.0 or CC0 (mirrors disagree)",
    where="https://borealisdata.ca/dataverse/OCTID",
    citation=(
        "Gholami et al.: OCTID: Optical coherence tomography image database. "
        "Computers and Electrical Engineering 81, 106532, 2020"
    ),
    patients="none published: the split is by image",
    find=find,
    layout="the five folders *-Retinal-OCT-images",
    published={"AMD": 55, "CSR": 102, "DR": 107, "MH": 102, "NORMAL": 206},
)
