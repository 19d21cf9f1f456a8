"""DICOM structured reports: a folder of them as a table of reports.

DICOM PS3.3, C.17.3: a tree of content items. Words, and codes and numbers with their names, are the
report; who observed what on whom and when (observation context) and concept modifiers are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retfiner.common.errors import InputError
from retfiner.common.eyes import eye_of
from retfiner.common.progress import track
from retfiner.data.table_file import Table
from retfiner.vision.images.dicom import is_dicom
from retfiner.vision.images.headers import about_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

CONTEXT = ("HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS ACQ CONTEXT")
"""Relations of items that say something about the report, not about the eye."""


def read_structured_reports(
    folder: Path, columns: dict[str, str], report_column: str
) -> tuple[Table, list[Path]]:
    """Read the structured reports in a folder and below; its other files are left alone.

    Args:
        folder: The folder, which may be that of the scans.
        columns: Names of the columns of patient, eye and date, as far as they are asked for.
        report_column: Name of the column of the reports.

    Returns:
        The table, and the file of each row.

    Raises:
        InputError: If there is none.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    paths, rows = [], []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in track(files, "reading reports", len(files), "file"):
        try:
            if not is_dicom(path):
                continue
            report = dcmread(path, stop_before_pixels=True)
        except (OSError, InvalidDicomError):
            continue  # of no use as a scan either, which is said there
        if report.get("Modality") != "SR" or not report.get("ContentSequence"):
            continue
        patient, eye, day = about_dicom(report)
        items = list(_items(report.ContentSequence))
        said = (eye_of(value) for name, value in items if "laterality" in name.casefold())
        eye = eye or next(filter(None, said), "")
        text = " ".join(_sentence(name, value) for name, value in items if value)
        paths.append(path)
        rows.append({"patient": patient, "eye": eye, "date": day, "report": text})
    if not paths:
        raise InputError(
            f"{folder} holds no DICOM structured report",
            got=f"{len(files)} files",
            expected="files of modality SR with content, or a table: CSV or .xlsx",
        )
    names = {**columns, "report": report_column}
    cells = {name: [row[key] for row in rows] for key, name in names.items()}
    notes = [f"{len(paths):,} DICOM structured reports"]
    return Table(list(range(1, len(paths) + 1)), cells, {}, notes), paths


def _items(sequence: Iterable[Dataset]) -> Iterator[tuple[str, str]]:
    """Give names and values in their order, depth first; the name of plain words is empty."""
    for item in sequence:
        if item.get("RelationshipType") in CONTEXT:
            continue
        name, kind = _meaning(item, "ConceptNameCodeSequence"), item.get("ValueType")
        if kind == "TEXT":
            yield "", str(item.get("TextValue") or "").strip()
        elif kind == "CODE":
            yield name, _meaning(item, "ConceptCodeSequence")
        elif kind == "NUM":
            yield name, _number(item)
        yield from _items(item.get("ContentSequence") or [])


def _meaning(item: Dataset, name: str) -> str:
    codes = item.get(name) or []
    return str(codes[0].get("CodeMeaning") or "").strip() if codes else ""


def _number(item: Dataset) -> str:
    for measured in item.get("MeasuredValueSequence") or []:
        unit = (measured.get("MeasurementUnitsCodeSequence") or [None])[0]
        written = "" if unit is None else str(unit.get("CodeValue") or "")
        return f"{measured.get('NumericValue', '')} {written}".strip()
    return ""


def _sentence(name: str, value: str) -> str:
    text = f"{name}: {value}" if name else value
    return text if text[-1] in ".!?。" else text + "."
