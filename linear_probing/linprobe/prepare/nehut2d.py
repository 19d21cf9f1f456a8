"""NEHUT2D (Noor Eye Hospital, University of Tehran): normal, drusen or CNV, 16,822 B-scans.

As downloaded (an archive within an archive, and a table)::

    NEH_UT_2021RetinalOCTDataset/{NORMAL,DRUSEN,CNV}/<patient>/[OD|OS/]000_normal.jpg or .tif
    data_information.csv    Patient ID,Class,Eye,B-scan,Label,Directory

- Label: with ``--label bscan``, the default, the B-scan's own (``Label``); with ``--label patient``
  the patient's diagnosis (``Class``).
- Patient: (Class, Patient ID), since the ids restart in each class.
- B-scans: all, each with its label; ``--bscan`` does not apply.
- Split: ours, random by patient; the authors published none.

Traps: the table lists some files twice, writes some paths with backslashes, and differs from the
disk by case (``NOrmal``). Patients with byte-identical B-scans, under other ids and even in other
classes, are one patient here. 2,910 B-scans labelled normal are of patients with drusen or CNV, so
that the two kinds of label differ. A table that is not in UTF-8 is an error that says so.
The licence could not be checked against the data.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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
from linprobe.prepare.identical import Groups, identical_files
from linprobe.prepare.pixels import read_gray
from linprobe.prepare.sheets import read_csv
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options
from retfiner.common.errors import InputError, shorten

CLASSES = ("NORMAL", "DRUSEN", "CNV")
PATIENTS = {"NORMAL": 120, "DRUSEN": 160, "CNV": 161}
TABLE = "data_information.csv"
COLUMNS = ("Patient ID", "Class", "Eye", "B-scan", "Label", "Directory")
_AGAIN = "download archive and table again, from the same version"


class Row(NamedTuple):
    """A B-scan as the table has it, its file found."""

    path: PurePosixPath
    label: str
    diagnosis: str
    patient: str


def list_bscans(folder: Path, options: Options) -> Listing:
    """Find the B-scans that the table lists; of the images, as much is read as tells copies.

    Raises:
        InputError: If the table or a class is missing, or much of either has no counterpart.
    """
    files = list_files(folder, (*IMAGES, ".csv"))
    table = find_file(folder, files, TABLE, f"download {TABLE} as well and give it with --source")
    images = _by_place([path for path in files if path.suffix.lower() in IMAGES])
    rows, notes = _rows(folder / table, images)
    labels = [row.diagnosis if options.label == "patient" else row.label for row in rows]
    layout = "{NORMAL,DRUSEN,CNV}/<patient>/<n>_<label>.jpg"
    require_classes(labels, CLASSES, folder, layout)
    known = {row.path for row in rows}
    unknown = [str(path) for path in images.values() if path not in known]
    notes += tolerate(f"images are not in {TABLE}", unknown, len(images), _AGAIN)
    groups, merged = _patients(folder, rows)
    bscans = [
        BScan(
            name=safe_stem("_".join(_from_class(row.path).with_suffix("").parts)),
            label=label,
            patient="-".join(groups.of((row.diagnosis, row.patient))),
            source=str(row.path),
            read=partial(read_gray, folder / row.path),
        )
        for row, label in zip(rows, labels, strict=True)
    ]
    counts = Counter(diagnosis for diagnosis, _ in {(r.diagnosis, r.patient) for r in rows})
    notes += [*merged, *_label_notes(rows), *compare_counts(counts, PATIENTS, "patients")]
    return Listing(renamed(bscans), notes)


def _from_class(path: PurePosixPath) -> PurePosixPath:
    """Cut a path off above its class folder."""
    for k, part in enumerate(path.parts[:-1]):
        if part.upper() in CLASSES:
            return PurePosixPath(*path.parts[k:])
    return path


def _by_place(paths: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """Find images by class, patient and name, whatever their case."""
    images: dict[str, PurePosixPath] = {}
    for path in paths:
        place = str(_from_class(path)).casefold()
        if place in images:
            raise InputError(
                "Two images have the same class, patient and name",
                got=f"{images[place]} and {path}",
                expected="each once",
                remedy="give one copy of the download",
            )
        images[place] = path
    return images


def _rows(table: Path, images: Mapping[str, PurePosixPath]) -> tuple[list[Row], list[str]]:
    """Read the table: each file once, and only those that are there."""
    found: dict[PurePosixPath, Row] = {}
    absent: list[str] = []
    contradicting: set[PurePosixPath] = set()
    n_again = 0
    cells = read_csv(table, COLUMNS, exactly=True)
    for cell in cells:
        directory = PurePosixPath(cell["Directory"].replace("\\", "/"))
        path = images.get(str(_from_class(directory)).casefold())
        row = None if path is None else _row(cell, path, table)
        if path is None or row is None:
            absent.append(cell["Directory"])
        elif path in found:
            n_again += 1
            if found[path] != row:
                contradicting.add(path)
        else:
            found[path] = row
    notes = tolerate(f"rows of {TABLE} have no image", absent, len(cells), _AGAIN)
    torn = [str(path) for path in sorted(contradicting)]
    notes += tolerate(f"images have two rows of {TABLE} that differ", torn, len(found), _AGAIN)
    if n_again:
        notes.append(f"{n_again} rows of {TABLE} name a file a second time; it was taken once.")
    return [row for path, row in found.items() if path not in contradicting], notes


def _row(cell: Mapping[str, str], path: PurePosixPath, table: Path) -> Row:
    label, diagnosis, patient = cell["Label"].upper(), cell["Class"].upper(), cell["Patient ID"]
    if label not in CLASSES or diagnosis not in CLASSES or not patient:
        raise InputError(
            f"{table}: {cell['Directory']} has no label, class or patient of this data set",
            got=f"Label {cell['Label']!r}, Class {cell['Class']!r}, Patient ID {patient!r}",
            expected=", ".join(CLASSES),
            remedy=_AGAIN,
        )
    return Row(path, label, diagnosis, patient)


def _patients(folder: Path, rows: Sequence[Row]) -> tuple[Groups[tuple[str, ...]], list[str]]:
    """Join the patients that share a folder or a byte-identical B-scan."""
    groups: Groups[tuple[str, ...]] = Groups()
    owner: dict[Path, tuple[str, ...]] = {}
    for row in rows:
        key = (row.diagnosis, row.patient)
        owner[folder / row.path] = key
        groups.of(key)
    n_identical, n_across = 0, 0
    joined: set[tuple[str, ...]] = set()
    for same in identical_files(list(owner)):
        keys = list(dict.fromkeys(owner[path] for path in same))
        if len(keys) == 1:
            continue
        n_identical += len(same)
        joined.update(keys)
        n_across += len({key[0] for key in keys}) > 1
        for other in keys[1:]:
            groups.join(keys[0], other)
    notes = []
    if joined:
        people = {groups.of(member) for member in joined}
        notes.append(
            f"{n_identical} files that are byte-identical link {len(joined)} patients, who were "
            f"merged to {len(people)}; {n_across} B-scans are in several classes."
        )
    return groups, notes + _join_by_folder(groups, rows)


def _join_by_folder(groups: Groups[tuple[str, ...]], rows: Sequence[Row]) -> list[str]:
    """Join the patients whose B-scans lie in one patient's folder."""
    owners: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        owners[_from_class(row.path).parts[:2]].add((row.diagnosis, row.patient))
    shared = sorted("/".join(place) for place, keys in owners.items() if len(keys) > 1)
    for keys in owners.values():
        first, *others = sorted(keys)
        for key in others:
            groups.join(first, key)
    if not shared:
        return []
    return [
        f"{len(shared)} folders hold B-scans of several patient ids, merged: {shorten(shared)}."
    ]


def _label_notes(rows: Sequence[Row]) -> list[str]:
    differing = Counter((row.label, row.diagnosis) for row in rows if row.label != row.diagnosis)
    return [
        f"{count} B-scans labelled {label} are of patients with the diagnosis {diagnosis}."
        for (label, diagnosis), count in sorted(differing.items())
    ]


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
    list_bscans=list_bscans,
)
