"""OLIVES: diabetic retinopathy or diabetic macular oedema, two clinical studies of 96 eyes.

As downloaded (archives within an archive)::

    Prime_FULL/01-001/W0/OD/27.png                      patient, week, eye; 49 B-scans
    TREX DME/GILA/0234GOD/V1/OD/TREXW_000027.tif        arm, patient, visit, eye; 49 B-scans
    Biomarker_Clinical_Data_Images.csv                  of 9,408 B-scans; may be missing

A patient's folder in TREX is a number, a letter of the arm and the eye; the number alone is taken
for the patient, which can only make the split stricter. Only files named by a number, or
``TREX..._<number>``, are B-scans. The table's paths begin with a slash, and some have another
suffix than the file; an empty biomarker is unknown, not absent.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from linprobe.prepare.files import IMAGES, list_files, safe_stem, scan_order, squeeze
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options, bscans_of
from linprobe.prepare.tables import read_table
from linprobe.prepare.volumes import slices_of_images
from retfiner.common.patients import TARGET

CLASSES = ("DR", "DME")
TABLE, PATH = "Biomarker_Clinical_Data_Images.csv", "Path (Trial/Arm/Folder/Visit/Eye/Image Name)"
BIOMARKERS = (
    "Atrophy / thinning of retinal layers", "Disruption of EZ", "DRIL", "IR hemorrhages", "IR HRF",
    "Partially attached vitreous face", "Fully attached vitreous face",
    "Preretinal tissue/hemorrhage", "Vitreous debris", "VMT", "DRT/ME", "Fluid (IRF)",
    "Fluid (SRF)", "Disruption of RPE", "PED (serous)", "SHRM",
)  # fmt: skip
_STUDIES = {"primefull": "DR", "trexdme": "DME"}
_BELOW = {"DR": 3, "DME": 4}
"""How many folders lie between the study and an image."""
_STEM = {"DR": re.compile(r"\d+"), "DME": re.compile(r"TREX\w*?_?\d+", re.IGNORECASE)}
_TREX_PATIENT = re.compile(r"(\d+)[A-Z]*?(?:OD|OS|OU)?", re.IGNORECASE)


class Volume(NamedTuple):
    """An eye at a visit."""

    label: str
    patient: str
    eye: str
    place: PurePosixPath
    words: tuple[str, ...]


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each eye and visit.

    Raises:
        InputError: If a B-scan is missing.
    """
    tables = [path for path in list_files(folder, (".csv",)) if path.name == TABLE]
    told = _targets(folder / tables[0]) if tables else {}
    volumes: dict[Volume | None, list[PurePosixPath]] = defaultdict(list)
    for path in list_files(folder, IMAGES):
        volumes[volume_of(path)].append(path)
    n_other = len(volumes.pop(None, []))
    notes = [f"{n_other} images that are no B-scans (fundus, by their names) left out."]
    notes *= bool(n_other)
    bscans: list[BScan] = []
    eyes = set()
    for volume, paths in volumes.items():
        assert volume is not None
        name = "_".join((volume.patient.partition("_")[0], *volume.words))
        slices, place = slices_of_images(folder, scan_order(paths)), str(volume.place)
        found = bscans_of(slices, options.bscan, place, name, volume.label, volume.patient)
        bscans += [replace(bscan, about=told.get(_key(bscan.source), {})) for bscan in found]
        eyes.add((volume.label, volume.patient, volume.eye))
    if tables:
        n_told = sum(bool(bscan.about) for bscan in bscans)
        notes.append(f"{TABLE} tells biomarkers of {n_told} of {len(bscans)} B-scans.")
    return Listing(bscans, notes, counts=Counter(label for label, _, _ in eyes))


def _targets(table: Path) -> dict[str, dict[str, str]]:
    """Read the biomarkers, acuity and thickness of each B-scan, by study, folders and number."""
    rows = read_table(table, (PATH, *BIOMARKERS)).to_dict("records")
    names = [name for name in (*BIOMARKERS, "BCVA", "CST") if name in rows[0]] if rows else []
    return {_key(row[PATH]): {f"{TARGET}{name}": row[name] for name in names} for row in rows}


def _key(path: str) -> str:
    """Reduce a path to what the table and the folders share: from the study on, no suffix."""
    parts = [squeeze(part) for part in PurePosixPath(path.replace("\\", "/")).with_suffix("").parts]
    studies = [k for k, part in enumerate(parts) if part in _STUDIES]
    return "/".join(parts[studies[-1] :] if studies else parts)


def volume_of(path: PurePosixPath) -> Volume | None:
    """Tell whose eye an image is of, at which visit; None if it is no B-scan."""
    parts = path.parts
    found = [k for k, part in enumerate(parts[:-1]) if squeeze(part) in _STUDIES]
    if not found:
        return None
    label = _STUDIES[squeeze(parts[found[-1]])]
    words = parts[found[-1] + 1 : -1]
    if len(words) != _BELOW[label] or not _STEM[label].fullmatch(path.stem):
        return None
    patient, _, eye = words[-3:]
    if label == "DME":
        match = _TREX_PATIENT.fullmatch(patient)
        patient = match[1] if match else patient
    study = "PRIME" if label == "DR" else "TREX"
    return Volume(label, f"{study}_{safe_stem(patient)}", eye.upper(), path.parent, words)


SPEC = DataSetSpec(
    name="OLIVES",
    task="diabetic retinopathy or diabetic macular oedema",
    classes=CLASSES,
    licence="CC BY 4.0",
    where="https://zenodo.org/records/7105232",
    citation=(
        "Prabhushankar et al.: OLIVES Dataset: Ophthalmic Labels for Investigating Visual Eye "
        "Semantics. NeurIPS 2022, Datasets and Benchmarks"
    ),
    patients="patient folder with its study; of TREX, the number without arm and eye",
    find=find,
    layout="Prime_FULL and TREX DME, both unpacked",
    published={"DR": 40, "DME": 56},
    unit="eyes",
    volumes=True,
)
