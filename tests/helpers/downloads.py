"""Small downloads of the probing data sets, in the layouts and formats they are published in.

Every B-scan shows a pattern of its own number, :func:`pattern`, so that a test can tell which one
was read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)


def pattern(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw the B-scan of a number: 8 bit, exact in every lossless format."""
    rows, columns = np.indices(size)
    return ((rows * 11 + columns * 5 + number * 37) % 251).astype(np.uint8)


def stack(numbers: Iterable[int], axis: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Stack the B-scans of several numbers along an axis."""
    return np.stack([pattern(number, size) for number in numbers], axis=axis)


def write_image(path: Path, number: int) -> Path:
    """Write the B-scan of a number in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pattern(number)).save(path)
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerows([header, *rows])
    return path


# ------------------------------------------------------------------ Duke iAMD


def write_duke_volume(
    folder: Path, label: str, subject: int, volume: np.ndarray, around: str | None = None
) -> Path:
    """Write a volume (depth, A-scans, B-scans) as MATLAB 5, with what else lies in such a file."""
    from scipy.io import savemat

    place = folder / (label if around is None else around)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"Farsiu_Ophthalmology_2013_{label}_Subject_{subject}.mat"
    maps = np.full((volume.shape[2], volume.shape[1], 3), np.nan)
    content = {"images": volume, "layerMaps": maps, "Age": np.array([[70]])}
    savemat(path, content, do_compression=True)
    return path


def write_duke(folder: Path, n_bscans: int = 7, per_class: int = 2) -> Path:
    """Write AMD and then control volumes; B-scan k of the volume v shows 100 v + k."""
    for v in range(2 * per_class):
        label, subject = ("AMD", "Control")[v // per_class], 1001 + v % per_class
        numbers = range(100 * v, 100 * v + n_bscans)
        write_duke_volume(folder, label, subject, stack(numbers, axis=2))
    return folder


# ------------------------------------------------------------------ Harvard-GDP


def write_harvard(
    folder: Path,
    labels: Sequence[object] = ("yes", "no", "no", "yes"),
    axis: int = 0,
    size: tuple[int, int] = (12, 12),
    suffix: str = "",
    table: bool = True,
) -> Path:
    """Write thickness maps and volumes of 5 B-scans under the same names, and the table."""
    rows = []
    for v, label in enumerate(labels):
        name = f"data_{v + 1:04d}"
        status = np.int64(str(label).lower() in ("yes", "1"))
        for place in ("rnflt_maps", "Bscan"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / "rnflt_maps" / f"{name}.npz",
            rnflt=np.zeros((225, 225)),
            glaucoma=status,
            tds=np.zeros(52),
        )
        volume = stack(range(100 * v, 100 * v + 5), axis, size)
        numbers = {"age": 60.5 + v, "male": v % 2, "race": v % 3, "hispanic": (v % 3) - 1}
        extra = {} if table else {"glaucoma": status, **numbers}
        np.savez_compressed(folder / "Bscan" / f"{name}.npz", bscans=volume, **extra)
        sex, race = (
            ("female", "male")[v % 2],
            ("asian", "black or african american", "white")[v % 3],
        )
        hispanic, use = ("", "no", "yes")[v % 3], "training" if v % 2 else "test"
        rows.append((name + suffix, label, 60.5 + v, sex, race, hispanic, use))
    if table:
        header = ("filename", "glaucoma", "age", "gender", "race", "hispanic",
                  "glaucoma_detection_use")  # fmt: skip
        write_csv(folder / "ReadMe" / "data_summary.csv", header, rows)
    return folder


# ------------------------------------------------------------------ OCTDL

OCTDL_HEADER = (
    "file_name",
    "disease",
    "subcategory",
    "condition",
    "patient_id",
    "eye",
    "sex",
    "year",
    "image_width",
    "image_hight",
)
OCTDL_CLASSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")


def write_octdl(folder: Path, suffix: str = "", per_class: int = 4) -> Path:
    """Write images of two patients a class, two each, and the table."""
    rows = []
    for c, label in enumerate(OCTDL_CLASSES):
        for k in range(per_class):
            patient = 1132000 + 10 * c + k // 2
            stem = f"{label.lower()}_{patient}_{k % 2 + 1}"
            write_image(folder / "OCTDL" / label / f"{stem}.jpg", 10 * c + k)
            rows.append((stem + suffix, label, "", "", patient, "OD", "F", 2020, 16, 12))
    write_csv(folder / "OCTDL_labels.csv", OCTDL_HEADER, rows)
    return folder


# ------------------------------------------------------------------ OCTID

OCTID_FOLDERS = {
    "Normal-Retinal-OCT-images": "NORMAL",
    "Age-related-Macular-Degeneration-Retinal-OCT-images": "AMRD",
    "Central-serous-retinopathy-retinal-OCT-images": "CSR",
    "Diabetic-Retinopathy-Retinal-OCT-Images": "DR",
    "Macular-Hole-Retinal-OCT-images": "MH",
}


def write_octid(folder: Path, per_class: int = 3) -> Path:
    """Write the five folders."""
    for c, (place, stem) in enumerate(OCTID_FOLDERS.items()):
        for k in range(1, per_class + 1):
            write_image(folder / place / f"{stem}{k}.jpeg", 10 * c + k)
    return folder


# ------------------------------------------------------------------ NEHUT2D

NEHUT_HEADER = ("Patient ID", "Class", "Eye", "B-scan", "Label", "Directory")


def write_nehut(folder: Path, change: Mapping[str, Sequence[object]] | None = None) -> Path:
    """Write two patients a class, ids 1 and 2 in each, with two B-scans; the first one is normal.

    Args:
        folder: Where to write.
        change: Rows of the table to replace, by their ``Directory``.
    """
    rows: list[Sequence[object]] = []
    for c, label in enumerate(("NORMAL", "DRUSEN", "CNV")):
        for patient in (1, 2):
            for k in range(2):
                word = "normal" if k == 0 else label.lower()
                eye = "OD/" if patient == 1 else ""
                suffix = "jpg" if patient == 1 else "tif"
                place = f"{label}/{patient}/{eye}{k:03d}_{word}.{suffix}"
                write_image(
                    folder / "NEH_UT_2021RetinalOCTDataset" / place, 100 * c + 10 * patient + k
                )
                row = (patient, label, "OD", k, word.capitalize(), place)
                rows.append((change or {}).get(place, row))
    write_csv(folder / "data_information.csv", NEHUT_HEADER, rows)
    return folder


# ------------------------------------------------------------------ GAMMA

GAMMA_GRADES = ("non", "early", "mid_advanced")


def write_gamma(
    folder: Path, grades: Sequence[str] = ("non", "early", "mid_advanced", "non"), raw: bool = False
) -> Path:
    """Write samples with 12 B-scans each, as images or as a raw volume, and the sheet."""
    from openpyxl import Workbook

    top = folder / "Glaucoma_grading" / "training"
    book = Workbook()
    sheet = book.active
    sheet.append(["data", *GAMMA_GRADES])
    for v, grade in enumerate(grades):
        name = f"{v + 1:04d}"
        sheet.append([v + 1, *(int(grade == column) for column in GAMMA_GRADES)])
        place = top / "multi-modality_images" / name
        write_image(place / f"{name}.jpg", 99)
        if raw:
            write_mhd(place / f"{name}_Sequence" / f"{name}_Sequence_OCT_Iowa.mhd", 100 * v)
        else:
            for k in range(12):
                write_image(place / name / f"{k}_image.jpg", 100 * v + k)
    book.save(top / "glaucoma_grading_training_GT.xlsx")
    write_image(folder / "Glaucoma_grading" / "testing" / "multi-modality_images/0101/0101.jpg", 98)
    return folder


def write_mhd(path: Path, first: int, n_bscans: int = 12) -> Path:
    """Write a MetaImage volume with its header and bare values, B-scan k showing ``first + k``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = stack(range(first, first + n_bscans), axis=0)
    path.with_suffix(".raw").write_bytes(volume.tobytes())
    depth, height, width = volume.shape
    path.write_text(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"ElementSpacing = 0.01 0.003 0.02\nDimSize = {width} {height} {depth}\n"
        f"ElementType = MET_UCHAR\nElementDataFile = {path.with_suffix('.raw').name}\n"
    )
    return path


# ------------------------------------------------------------------ Kermany

KERMANY_CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


def write_kermany(
    folder: Path,
    splits: Mapping[str, Sequence[int]] | None = None,
    top: str = "CellData/OCT",
) -> Path:
    """Write two images of each patient in each class.

    Args:
        folder: Where to write.
        splits: Patients by split; class c has the patient's number plus 1000 c. An empty split name
            is the flat layout.
        top: Folders around the splits.
    """
    chosen = {"train": (1, 2, 3), "test": (4,)} if splits is None else splits
    for split, patients in chosen.items():
        for c, label in enumerate(KERMANY_CLASSES):
            for patient in patients:
                for k in (1, 2):
                    name = f"{label}-{patient + 1000 * c}-{k}.jpeg"
                    write_image(folder / top / split / label / name, patient + 10 * c + k)
    return folder


# ------------------------------------------------------------------ Srinivasan


def write_srinivasan(folder: Path, per_class: int = 2, n_bscans: int = 11) -> Path:
    """Write volumes as TIFF files."""
    for c, label in enumerate(("AMD", "DME", "NORMAL")):
        for v in range(1, per_class + 1):
            place = folder / "Publication_Dataset" / f"{label}{v}" / "TIFFs" / "8bitTIFFs"
            for k in range(1, n_bscans + 1):
                write_image(place / f"{k:03d}.tif", 1000 * c + 100 * v + k)
    return folder


# ------------------------------------------------------------------ OLIVES


def write_olives(folder: Path, n_bscans: int = 5) -> Path:
    """Write two patients of PRIME and two eyes of one and one eye of another patient of TREX."""
    v = 0
    prime = [("01-001", "W0", "OD"), ("01-001", "W4", "OD"), ("01-002", "W0", "OS")]
    for patient, visit, eye in prime:
        place = folder / "Prime_FULL" / patient / visit / eye
        for k in range(n_bscans):
            write_image(place / f"{k}.png", 100 * v + k)
        write_image(place / f"fundus_{visit}.png", 99)
        v += 1
    trex = [
        ("GILA", "0201GOD", "V1", "OD", "TREXJ_{:06d}.tif"),
        ("TREX", "0201TOS", "V1", "OS", "TREX_DME_{:06d}.jpeg"),
        ("Monthly", "0245MOD", "V2", "OD", "TREXW_{:06d}.tif"),
    ]
    for arm, patient, visit, eye, name in trex:
        place = folder / "TREX DME" / arm / patient / visit / eye
        for k in range(n_bscans):
            write_image(place / name.format(k), 100 * v + k)
        write_image(place / f"fundus_{eye}_{visit}.tif", 99)
        v += 1
    return folder


# ------------------------------------------------------------------ Noor


def write_noor_volume(place: Path, first: int, n_bscans: int, name: str = "Image {}.TIFF") -> None:
    """Write a volume whose B-scan number k, from 1, shows ``first + k``."""
    for k in range(1, n_bscans + 1):
        write_image(place / name.format(k), first + k)
