"""OCTDL: seven classes, 2,064 B-scans of an Optovue Avanti RTVue XR.

As downloaded (an archive and a table)::

    OCTDL/{AMD,DME,ERM,NO,RAO,RVO,VID}/<file>.jpg
    OCTDL_labels.csv    file_name, disease, subcategory, condition, patient_id, ...

- Label: ``disease`` of the table.
- Patient: ``patient_id`` of the table; it is in the file names as well, ``dme_1132061_1``.
- B-scans: single images.
- Split: ours, random by patient. The authors' own, 70/10/20, is by image and has patients in
  several parts; it is not used.

Traps: ``file_name`` comes with or without ``.jpg``. Images that the table does not know, and rows
without an image, are left out and counted; many of them are an error. A row that contradicts the
folder of its image is an error.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.finding import (
    IMAGES,
    compare_counts,
    find_file,
    list_files,
    renamed,
    require_classes,
    safe_stem,
    tolerate,
)
from linprobe.prepare.pixels import read_gray
from linprobe.prepare.sheets import Rows, read_csv
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options
from retfiner.common.errors import InputError

CLASSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")
BSCANS = {"AMD": 1231, "DME": 147, "ERM": 155, "NO": 332, "RAO": 22, "RVO": 101, "VID": 76}
TABLE = "OCTDL_labels.csv"


def list_bscans(folder: Path, options: Options) -> Listing:
    """Find the B-scans that the table lists.

    Raises:
        InputError: If the table or a class is missing, or much of either has no counterpart.
    """
    files = list_files(folder, (*IMAGES, ".csv"))
    table = find_file(folder, files, TABLE, f"download {TABLE} as well and give it with --source")
    rows = read_csv(folder / table, ("file_name", "disease", "patient_id"))
    images = _images(files)
    found, absent = _match(rows, images, table)
    require_classes(
        {row["disease"] for row in found.values()}, CLASSES, folder, "OCTDL/<class>/<file>.jpg"
    )
    unknown = [str(path) for name, path in images.items() if name not in found]
    remedy = "give image archive and table of the same version"
    notes = [
        *tolerate(f"rows of {TABLE} have no image", absent, len(rows), remedy),
        *tolerate(f"images are not in {TABLE}", unknown, len(images), remedy),
    ]
    bscans = [
        BScan(
            name=safe_stem(images[name].stem),
            label=row["disease"],
            patient=row["patient_id"],
            source=str(images[name]),
            read=partial(read_gray, folder / images[name]),
        )
        for name, row in found.items()
    ]
    counts = Counter(bscan.label for bscan in bscans)
    return Listing(renamed(bscans), notes + compare_counts(counts, BSCANS, "B-scans"))


def _key(file_name: str) -> str:
    """Reduce a file name to what the table and the folders have in common."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    return (path.stem if path.suffix.lower() in IMAGES else path.name).casefold()


def _images(files: list[PurePosixPath]) -> dict[str, PurePosixPath]:
    images: dict[str, PurePosixPath] = {}
    for path in files:
        if path.suffix.lower() not in IMAGES:
            continue
        if _key(path.name) in images:
            raise InputError(
                f"Two images are named {path.name}",
                got=f"{images[_key(path.name)]} and {path}",
                expected="each once",
                remedy="give one copy of the download, without a split made of it",
            )
        images[_key(path.name)] = path
    return images


def _match(
    rows: Rows, images: dict[str, PurePosixPath], table: PurePosixPath
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Find the row of each image, and the rows that have none."""
    found: dict[str, dict[str, str]] = {}
    absent = []
    for cells in rows:
        name = _key(cells["file_name"])
        row = cells | {"disease": cells["disease"].upper()}
        if row["disease"] not in CLASSES or not row["patient_id"]:
            raise InputError(
                f"{table}: {row['file_name']} has no class of this data set, or no patient",
                got=f"disease {row['disease']!r}, patient_id {row['patient_id']!r}",
                expected=", ".join(CLASSES),
            )
        if name not in images:
            absent.append(row["file_name"])
            continue
        around = images[name].parent.name.upper()
        if around in CLASSES and around != row["disease"]:
            raise InputError(
                f"{images[name]} lies in another class's folder",
                got=f"{around}, and {row['disease']} in {table}",
                remedy="download images and table again",
            )
        if found.get(name, row) != row:
            raise InputError(f"{table}: {row['file_name']} has two rows that differ")
        found[name] = row
    return found, absent


SPEC = DataSetSpec(
    name="OCTDL",
    task="AMD, DME, ERM, normal, RAO, RVO or VID",
    classes=CLASSES,
    licence="CC BY 4.0",
    where="https://data.mendeley.com/datasets/sncdhf53xc/4",
    citation=(
        "Kulyabin et al.: OCTDL: Optical Coherence Tomography Dataset for Image-Based Deep "
        "Learning Methods. Scientific Data 11, 365, 2024"
    ),
    patients="patient_id of OCTDL_labels.csv",
    list_bscans=list_bscans,
)
