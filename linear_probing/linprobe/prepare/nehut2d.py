"""NEHUT2D (Noor Eye Hospital, University of Tehran): normal, drusen or CNV, 16,822 B-scans.

As downloaded (an archive within an archive, and a table)::

    NEH_UT_2021RetinalOCTDataset/{NORMAL,DRUSEN,CNV}/<patient>/[OD|OS/]000_normal.jpg or .tif
    data_information.csv    Patient ID,Class,Eye,B-scan,Label,Directory

``Label`` is the B-scan's, ``Class`` the patient's diagnosis; ids restart in each class. The table
lists some files twice, writes some paths with backslashes, and differs from the disk by case.
Patients with byte-identical B-scans, under other ids and even in other classes, are one here.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from linprobe.prepare.files import IMAGES, by_key, find_file, identical_files, list_files
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options
from linprobe.prepare.tables import match, read_table
from linprobe.prepare.volumes import read_gray
from retfiner.common.errors import InputError, shorten

if TYPE_CHECKING:
    import pandas as pd
    from scipy.cluster.hierarchy import DisjointSet

CLASSES = ("NORMAL", "DRUSEN", "CNV")
TABLE = "data_information.csv"
COLUMNS = ("Patient ID", "Class", "Label", "Directory")
_AGAIN = "download archive and table again, from the same version"


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that the table lists; of the images, as much is read as tells copies.

    Raises:
        InputError: If the table is missing, or does not fit the images.
    """
    files = list_files(folder, (*IMAGES, ".csv"))
    table = find_file(folder, files, TABLE, f"download {TABLE} as well and give it with --source")
    images = by_key((p for p in files if p.suffix.lower() in IMAGES), _place)
    rows, notes, left_out = _rows(folder / table, images)
    people, merged = _patients(folder, rows)
    bscans = [
        BScan(
            name="_".join(_from_class(row.place).with_suffix("").parts),
            label=row.diagnosis if options.label == "patient" else row.label,
            patient=people[row.patient],
            source=str(row.place),
            read=partial(read_gray, folder / row.place),
        )
        for row in rows.itertuples()
    ]
    differing = rows[rows["label"] != rows["diagnosis"]].groupby(["label", "diagnosis"]).size()
    labels = [
        f"{count} B-scans labelled {label} are of patients with the diagnosis {diagnosis}."
        for (label, diagnosis), count in differing.items()
    ]
    counts = Counter(rows.drop_duplicates("patient")["diagnosis"])
    return Listing(bscans, [*notes, *merged, *labels], left_out, counts)


def _from_class(path: PurePosixPath) -> PurePosixPath:
    """Cut a path off above its class folder."""
    for k, part in enumerate(path.parts[:-1]):
        if part.upper() in CLASSES:
            return PurePosixPath(*path.parts[k:])
    return path


def _place(path: PurePosixPath) -> str:
    """Name an image by class, patient and file, whatever their case."""
    return str(_from_class(path)).casefold()


def _rows(
    table: Path, images: dict[str, PurePosixPath]
) -> tuple[pd.DataFrame, list[str], list[LeftOut]]:
    """Read the table, each file once, and only those that are there; notes; and what is left out.

    Columns are ``place``, ``label``, ``diagnosis`` and ``patient`` (with the class: ids restart).
    """
    read = read_table(table, COLUMNS)
    keys = [_place(PurePosixPath(text.replace("\\", "/"))) for text in read["Directory"]]
    cells, left_out = match(read, "Directory", keys, images, TABLE, "image", _AGAIN)
    rows = cells[["place"]].assign(
        label=cells["Label"].str.upper(),
        diagnosis=cells["Class"].str.upper(),
        patient=cells["Class"].str.upper() + "-" + cells["Patient ID"],
    )
    wrong = ~(rows["label"].isin(CLASSES) & rows["diagnosis"].isin(CLASSES))
    wrong |= cells["Patient ID"] == ""
    if wrong.any():
        cell = cells[wrong].iloc[0]
        raise InputError(
            f"{table}: {cell['Directory']} has no label, class or patient of this data set",
            got=", ".join(f"{name} {cell[name]!r}" for name in ("Label", "Class", "Patient ID")),
            expected=", ".join(CLASSES),
            remedy=_AGAIN,
        )
    different = rows.drop_duplicates()
    torn = different["place"][different["place"].duplicated()].unique()
    once = different.drop_duplicates("place")
    left_out.append(LeftOut(
        f"images have two rows of {TABLE} that differ",
        sorted(map(str, torn)), len(once), _AGAIN,
    ))  # fmt: skip
    again = len(rows) - len(once)
    note = f"{again} rows of {TABLE} name a file a second time; it was taken once."
    return once[~once["place"].isin(torn)], [note] * bool(again), left_out


def _patients(folder: Path, rows: pd.DataFrame) -> tuple[DisjointSet, list[str]]:
    """Join the patients that share a byte-identical B-scan or a folder."""
    from scipy.cluster.hierarchy import DisjointSet  # not for --list

    people, notes = DisjointSet(rows["patient"]), []
    owner = {folder / row.place: row.patient for row in rows.itertuples()}
    same = [list(dict.fromkeys(owner[path] for path in s)) for s in identical_files(owner)]
    folders = ["/".join(_from_class(path).parts[:2]) for path in rows["place"]]
    by_folder = rows.groupby(folders)["patient"].unique()
    shared = by_folder[by_folder.map(len) > 1]
    for group in (*same, *shared):
        for other in group[1:]:
            people.merge(group[0], other)
    joined = {patient for group in same if len(group) > 1 for patient in group}
    if joined:
        notes.append(
            f"Files that are byte-identical link {len(joined)} patients, who were merged to "
            f"{len({people[patient] for patient in joined})}."
        )
    if len(shared):
        notes.append(
            f"{len(shared)} folders hold B-scans of several patient ids, merged: "
            f"{shorten(list(shared.index))}."
        )
    return people, notes


SPEC = DataSetSpec(
    name="NEHUT2D",
    task="normal, drusen or CNV",
    classes=CLASSES,
    licence="CC BY 4.0 (to be checked with the data)",
    where="https://data.mendeley.com/datasets/8kt969dhx6/1",
    citation=(
        "Sotoudeh-Paima et al.: Multi-scale convolutional neural network for automated AMD "
        "classification using retinal OCT images. Computers in Biology and Medicine 144, "
        "105368, 2022"
    ),
    patients="(Class, Patient ID) of data_information.csv, merged where B-scans are identical",
    find=find,
    layout="{NORMAL,DRUSEN,CNV}/<patient>/<n>_<label>.jpg",
    table=TABLE,
    published={"NORMAL": 120, "DRUSEN": 160, "CNV": 161},
    unit="patients",
)
