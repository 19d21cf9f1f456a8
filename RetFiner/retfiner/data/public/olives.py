"""OLIVES: 9,408 B-scans with 16 biomarkers each, of two studies of diabetic eyes.

``Biomarker_Clinical_Data_Images.csv`` beside ``Prime_FULL`` and ``TREX DME``. There are no reports:
each is made by a template from the biomarkers, and says so in the column made_from. The central
subfield thickness is told too; visual acuity, which no B-scan shows, is not.

Traps: an empty biomarker is unknown, not absent. Paths begin with a slash, and name some files by
another suffix. The table lies in the archive twice. A folder of TREX is a number, an arm's letter
and the eye: the number is the patient.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from retfiner.common.errors import InputError
from retfiner.data.public.spec import Pair, PublicSet, find_file, images_below, read_columns

TABLE = "Biomarker_Clinical_Data_Images.csv"
PATH, THICKNESS, PATIENT = "Path (Trial/Arm/Folder/Visit/Eye/Image Name)", "CST", "Patient_ID"
BIOMARKERS = {
    "Fluid (IRF)": "intraretinal fluid",
    "Fluid (SRF)": "subretinal fluid",
    "DRT/ME": "diabetic macular oedema",
    "IR HRF": "intraretinal hyperreflective foci",
    "IR hemorrhages": "intraretinal haemorrhages",
    "Disruption of EZ": "disruption of the ellipsoid zone",
    "DRIL": "disorganisation of the inner retinal layers",
    "Atrophy / thinning of retinal layers": "atrophy or thinning of retinal layers",
    "Disruption of RPE": "disruption of the retinal pigment epithelium",
    "PED (serous)": "serous pigment epithelial detachment",
    "SHRM": "subretinal hyperreflective material",
    "VMT": "vitreomacular traction",
    "Partially attached vitreous face": "partially attached posterior vitreous",
    "Fully attached vitreous face": "fully attached posterior vitreous",
    "Preretinal tissue/hemorrhage": "preretinal tissue or haemorrhage",
    "Vitreous debris": "vitreous debris",
}
NORMAL = ("Partially attached vitreous face", "Fully attached vitreous face")
"""No findings: a B-scan that has but these is said to have no other biomarker."""
_TREX = re.compile(r"(\d+)[A-Z]*", re.IGNORECASE)


def read(path: Path, _folder: Path) -> tuple[list[Pair], list[str]]:
    """Read the rows that have any biomarker, with a report made of them.

    Raises:
        InputError: If the table or a column is missing.
    """
    notes: list[str] = []
    table = find_file(path, TABLE, notes)
    root = table.parent if path.is_file() else path
    cells = read_columns(table, [PATH, *BIOMARKERS], [THICKNESS, PATIENT])
    files = {_key(p.relative_to(root).parts): p for p in images_below(root)}
    pairs, unknown = [], 0
    for i, name in enumerate(cells[PATH]):
        report = describe(
            {marker: cells[marker][i] for marker in BIOMARKERS}, cells.get(THICKNESS, {i: ""})[i]
        )
        unknown += not report
        if report:
            parts = PurePosixPath(name.replace("\\", "/").lstrip("/")).parts
            image = files.get(_key(parts), root.joinpath(*parts))
            pairs.append(Pair(image, report, _patient(parts), "oct", "CC BY 4.0", "biomarkers"))
    return pairs, notes + [f"{unknown:,} rows without any biomarker left out"] * bool(unknown)


def describe(cells: dict[str, str], thickness: str) -> str:
    """Write the report of a B-scan; empty where no biomarker is known.

    Raises:
        InputError: If a cell is no number.
    """
    known = {name: _number(cell, name) > 0 for name, cell in cells.items() if cell}
    if not known:
        return ""
    there = [phrase for name, phrase in BIOMARKERS.items() if known.get(name)]
    findings = [name for name in BIOMARKERS if known.get(name) and name not in NORMAL]
    whole = len(known) == len(BIOMARKERS)
    none = ["no biomarker of diabetic disease"] if whole and not findings else []
    text = ", ".join([*there, *none]) or "no finding among those that were graded"
    report = f"{text[0].upper()}{text[1:]}."
    if not thickness:
        return report
    return f"{report} Central subfield thickness {_number(thickness, THICKNESS):.0f} µm."


def _number(cell: str, column: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise InputError(f"the column {column} of {TABLE} holds no number", got=cell) from error


def _key(parts: tuple[str, ...]) -> str:
    """Reduce a path to what the table and the folders share: from the study on, no suffix."""
    plain = [re.sub(r"[\s_]+", "", part).casefold() for part in parts]
    start = next((k for k, word in enumerate(plain) if word in ("primefull", "trexdme")), 0)
    return "/".join(plain[start:]).rpartition(".")[0]


def _patient(parts: tuple[str, ...]) -> str:
    """Name the patient as the probing set does: the folder above the visit, with its study."""
    folder = parts[-4] if len(parts) > 3 else ""
    if "trex" not in parts[0].casefold():
        return f"PRIME_{folder}"
    found = _TREX.fullmatch(folder)
    return f"TREX_{found[1] if found else folder}"


SET = PublicSet(
    layout="the folder with Prime_FULL, TREX DME and the table of biomarkers, unpacked",
    licence="CC BY 4.0",
    citation="Prabhushankar et al.: OLIVES Dataset: Ophthalmic Labels for Investigating Visual Eye "
    "Semantics. NeurIPS 2022, Datasets and Benchmarks",
    where="https://zenodo.org/records/7105232",
    patients="the patient's folder with its study",
    read=read,
)
