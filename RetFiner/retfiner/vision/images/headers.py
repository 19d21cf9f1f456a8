"""Who, which eye and when: what the headers of scans say besides the image.

DICOM, Heidelberg's ``.vol`` and ``.e2e``, Topcon's ``.fda`` and ``.fds`` carry it; Cirrus' ``.img``
and pictures have it in their names, if anywhere. What a file does not say is empty, never guessed.
Of ``.e2e``, the laterality, and of Topcon and ``.vol`` all places were seen in files; patient and
time of ``.e2e`` are where the projects LibE2E and oct-converter read them.
"""

from __future__ import annotations

import re
import struct
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retfiner.common.eyes import eye_of
from retfiner.common.patients import owner_in_name
from retfiner.vision.images import e2e, topcon, vol
from retfiner.vision.images.dicom import is_dicom
from retfiner.vision.images.image_file import translated
from retfiner.vision.images.reading import open_images

if TYPE_CHECKING:
    from pydicom import Dataset

_EPOCH = datetime(1601, 1, 1)
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_CIRRUS = re.compile(r"(.+?)_.*_(\d{1,2})-(\d{1,2})-(\d{4})_.*_(OD|OS)_", re.IGNORECASE)


class Scan(NamedTuple):
    """Consecutive B-scans of a file that were taken together.

    Attributes:
        path: The file.
        first: Index of the first of them.
        bscans: How many they are.
        patient: As the device knows the patient, no name.
        eye: OD, OS or nothing.
        day: ISO 8601, or nothing.
    """

    path: Path
    first: int
    bscans: int
    patient: str = ""
    eye: str = ""
    day: str = ""


def read_scans(path: Path) -> list[Scan]:
    """Read what a file says of its scans: one, or, of an ``.e2e``, one a series.

    Raises:
        InputError: If it cannot be read.
    """
    file = open_images(path)
    with translated(path):
        if isinstance(file, e2e.E2EFile):
            return _of_e2e(path, file)
        if isinstance(file, vol.VolFile):
            about = _of_vol(path)
        elif isinstance(file, topcon.TopconFile):
            about = _of_topcon(path)
        elif is_dicom(path):
            from pydicom import dcmread

            about = about_dicom(dcmread(path, stop_before_pixels=True, force=True))
        else:
            about = _of_name(path.stem)
    return [Scan(path, 0, file.count, *about)]


def about_dicom(header: Dataset) -> tuple[str, str, str]:
    """Read patient, eye and day off a DICOM header; empty where it does not say them."""
    names = ("AcquisitionDateTime", "AcquisitionDate", "StudyDate", "SeriesDate", "ContentDate")
    days = [str(header.get(name) or "") for name in names]  # the last is that of writing
    found = [match for day in days if (match := _DATE.fullmatch(day[:8]) or _DATE.match(day))]
    patient = str(header.get("PatientID") or "").strip()
    return patient, _laterality(header), "-".join(found[0].groups()) if found else ""


def _laterality(header: Dataset) -> str:
    """Read the eye off where DICOM has it: the image, the frames, the series, the region."""
    frames = [
        item.get("FrameLaterality")
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in header.get(name) or []
        for item in group.get("FrameAnatomySequence") or []
    ]
    regions = [
        modifier.get("CodeMeaning")
        for region in header.get("AnatomicRegionSequence") or []
        for modifier in region.get("AnatomicRegionModifierSequence") or []
    ]
    places = [header.get("ImageLaterality")], frames, [header.get("Laterality")], regions
    for place in places:
        eyes = {eye for word in place if (eye := eye_of(str(word or "")))}
        if eyes:
            return eyes.pop() if len(eyes) == 1 else "OU"
    return ""


def slice_of(path: Path) -> tuple[str, int] | None:
    """Read the series of a DICOM file and its number in it; None if it holds no image.

    Raises:
        InputError: If it cannot be read.
    """
    from pydicom import dcmread

    tags = ["SeriesInstanceUID", "InstanceNumber", "Rows"]
    with translated(path):
        header = dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        if header.get("Rows") is None:
            return None
        return str(header.get("SeriesInstanceUID") or ""), int(header.get("InstanceNumber") or 0)


def _of_vol(path: Path) -> tuple[str, str, str]:
    """Read it from the places that Heidelberg's documentation of the raw export gives."""
    with path.open("rb") as file:
        header = file.read(vol.HEADER)
    (ticks,) = struct.unpack_from("<Q", header, 88)
    return _text(header[140:161]), eye_of(_text(header[84:88])), _day(ticks)


def _of_topcon(path: Path) -> tuple[str, str, str]:
    with path.open("rb") as file:
        chunks = topcon.list_chunks(file, path)
        parts = []
        for name, size in (("@PATIENT_INFO_02", 32), ("@CAPTURE_INFO_02", 118)):
            chunk = chunks.get(name)
            file.seek(chunk.begin if chunk else 0)
            parts.append(file.read(min(size, chunk.size)) if chunk else b"")
    patient, capture = parts
    if len(capture) < 112:
        return _text(patient), "", ""
    try:
        day = date(*struct.unpack_from("<3H", capture, 106)).isoformat()
    except ValueError:
        day = ""
    return _text(patient), {0: "OD", 1: "OS"}.get(capture[0], ""), day


def _of_e2e(path: Path, file: e2e.E2EFile) -> list[Scan]:
    """Read chunks 9 (patient), 11 (laterality of a series) and 10004 (a B-scan's time)."""
    patients: dict[int, str] = {}
    eyes: dict[tuple[int, ...], str] = {}
    days: dict[tuple[int, ...], str] = {}
    with path.open("rb") as stream:
        for kind, key, payload in e2e.read_chunks(stream, {9: 127, 11: 15, 10004: 96}, path):
            if kind == 9:
                patients.setdefault(key[0], _text(payload[102:127]))
            elif kind == 11:
                eyes.setdefault(key[:3], eye_of(_text(payload[14:15])))
            else:
                days.setdefault(key[:3], _day(struct.unpack_from("<Q", payload, 88)[0]))
    scans, first = [], 0
    for series, count in file.series.items():
        about = (patients.get(series[0], ""), eyes.get(series, ""), days.get(series, ""))
        scans.append(Scan(path, first, count, *about))
        first += count
    return scans


def _of_name(stem: str) -> tuple[str, str, str]:
    cirrus = _CIRRUS.match(stem)
    if cirrus:
        patient, month, day, year, eye = cirrus.groups()
        return patient, eye.upper(), f"{year}-{int(month):02d}-{int(day):02d}"
    owner, found = owner_in_name(stem), _DATE.search(stem)
    return owner.patient, owner.eye, "-".join(found.groups()) if found else ""


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("latin1").strip()


def _day(ticks: int) -> str:
    """Turn 100 ns since 1601 into a day; nothing for what is no time of an OCT."""
    try:
        moment = _EPOCH + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return ""
    return moment.date().isoformat() if moment.year >= 1990 else ""
