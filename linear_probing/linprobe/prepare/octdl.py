"""OCTDL: seven classes, 2,064 B-scans of an Optovue Avanti RTVue XR.

As downloaded (an archive and a table)::

    OCTDL/{AMD,DME,ERM,NO,RAO,RVO,VID}/<file>.jpg
    OCTDL_labels.csv    file_name (with or without .jpg), disease, condition, patient_id, ...

The authors' own split, 70/10/20, is by image and has patients in several parts; it is not used.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import IMAGES, by_key, find_file, list_files
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options
from linprobe.prepare.tables import match, read_table
from linprobe.prepare.volumes import read_gray
from retfiner.common.errors import InputError

CLASSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")
TABLE = "OCTDL_labels.csv"


def find(folder: Path, _options: Options) -> Listing:
    """Find the B-scans that the table lists.

    Raises:
        InputError: If the table is missing, or does not fit the images.
    """
    files = list_files(folder, (*IMAGES, ".csv"))
    table = find_file(folder, files, TABLE, f"download {TABLE} as well and give it with --source")
    images = by_key((p for p in files if p.suffix.lower() in IMAGES), lambda path: _key(path.name))
    rows = read_table(folder / table, ("file_name", "disease", "patient_id"))
    rows["disease"] = rows["disease"].str.upper()
    remedy = "give image archive and table of the same version"
    keys = [_key(name) for name in rows["file_name"]]
    found, left_out = match(rows, "file_name", keys, images, TABLE, "image", remedy)
    bscans: dict[PurePosixPath, BScan] = {}
    for row in rows.to_dict("records"):
        _check(row, table)
    for row in found.to_dict("records"):
        path, label = row["place"], row["disease"]
        around = path.parent.name.upper()
        if around in CLASSES and around != label:
            raise InputError(
                f"{path} lies in another class's folder",
                got=f"{around}, and {label} in {table}",
                remedy="download images and table again",
            )
        read = partial(read_gray, folder / path)
        about = {name: row[name] for name in ("eye", "sex") if row.get(name)}
        bscan = BScan(path.stem, label, row["patient_id"], str(path), read, about=about)
        first = bscans.setdefault(path, bscan)
        if (first.label, first.patient) != (bscan.label, bscan.patient):
            raise InputError(f"{table}: {row['file_name']} has two rows that differ")
    return Listing(list(bscans.values()), [], left_out)


def _key(file_name: str) -> str:
    """Reduce a file name to what the table and the folders have in common."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    return (path.stem if path.suffix.lower() in IMAGES else path.name).casefold()


def _check(row: dict[str, str], table: PurePosixPath) -> None:
    if row["disease"] not in CLASSES or not row["patient_id"]:
        raise InputError(
            f"{table}: {row['file_name']} has no class of this data set, or no patient",
            got=f"disease {row['disease']!r}, patient_id {row['patient_id']!r}",
            expected=", ".join(CLASSES),
        )


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
    find=find,
    layout="OCTDL/<class>/<file>.jpg",
    table=TABLE,
    published={"AMD": 1231, "DME": 147, "ERM": 155, "NO": 332, "RAO": 22, "RVO": 101, "VID": 76},
)
