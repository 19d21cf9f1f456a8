"""OCTDL: 2,064 B-scans with disease, subcategory and condition; no reports.

``OCTDL/{AMD,DME,ERM,NO,RAO,RVO,VID}/<file>.jpg`` and ``OCTDL_labels.csv``. Each report is made by a
template from the labels, and says so in the column made_from.

Traps: ``file_name`` comes with or without ``.jpg``. The classes are those of the probing set OCTDL:
``--not_in`` takes out what is probed on. Spelling within subcategory and condition is not known for
certain (u): what stands there is written out, its underscores as blanks.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from retfiner.data.public.spec import Pair, PublicSet, find_file, images_below, read_columns
from retfiner.vision.images import READERS

TABLE = "OCTDL_labels.csv"
DISEASES = {
    "AMD": "age-related macular degeneration",
    "DME": "diabetic macular oedema",
    "ERM": "epiretinal membrane",
    "NO": "normal retina",
    "RAO": "retinal artery occlusion",
    "RVO": "retinal vein occlusion",
    "VID": "vitreomacular interface disease",
}


def read(path: Path, _folder: Path) -> tuple[list[Pair], list[str]]:
    """Read the rows of the table, with a report made of their labels.

    Raises:
        InputError: If the table or a column is missing.
    """
    notes: list[str] = []
    table = find_file(path, TABLE, notes)
    root = path if path.is_dir() else table.parent
    cells = read_columns(
        table, ["file_name", "disease", "patient_id"], ["subcategory", "condition"]
    )
    files = {_key(image.name): image for image in images_below(root)}
    pairs = []
    for i, name in enumerate(cells["file_name"]):
        image = files.get(_key(name), root / name)
        labels = [cells[column][i] for column in ("subcategory", "condition") if column in cells]
        report = describe(cells["disease"][i], labels)
        made = ("oct", "CC BY 4.0", "labels")
        pairs.append(Pair(image, report, cells["patient_id"][i], *made))
    return pairs, notes


def describe(disease: str, labels: list[str]) -> str:
    """Write the report of a B-scan: its disease by name, and what the other labels add to it."""
    said = DISEASES.get(disease.upper(), disease)
    words = [said]
    for label in labels:
        plain = " ".join(label.replace("_", " ").split())
        known = {word.casefold() for word in (*words, disease)}
        if plain and plain.casefold() not in known:
            words.append(plain)
    text = ", ".join(words)
    return f"{text[:1].upper()}{text[1:]}." if disease else ""


def _key(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return (path.stem if path.suffix.lower() in READERS else path.name).casefold()


SET = PublicSet(
    layout="the folder with OCTDL/ and OCTDL_labels.csv",
    licence="CC BY 4.0",
    citation="Kulyabin et al.: OCTDL: Optical Coherence Tomography Dataset for Image-Based Deep "
    "Learning Methods. Scientific Data 11, 365, 2024",
    where="https://data.mendeley.com/datasets/sncdhf53xc/4",
    patients="patient_id",
    read=read,
)
