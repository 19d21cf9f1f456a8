"""A folder of scans and an export of reports, joined by what both say: patient, eye, day.

Headers say it of the scans (:mod:`retfiner.vision.images.headers`), columns of the reports. What
does not match is counted by reason; no identifier is printed, and none written where a key for
pseudonyms is given.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from retfiner.common.errors import InputError
from retfiner.common.progress import track
from retfiner.data.check.structured_reports import read_structured_reports
from retfiner.data.patient_ids import patient_key
from retfiner.data.report_text import read_report
from retfiner.data.table_file import Table, read_table
from retfiner.vision.images import is_image_file
from retfiner.vision.images.headers import Scan, eye_of, read_scans

KEYS = ("patient", "eye", "date")
UNREADABLE = "file that cannot be read"
Key = tuple[str, ...]
_ISO = re.compile(r"((?:19|20)\d\d)[-./]?(\d{1,2})[-./]?(\d{1,2})(?:[ T].*)?")
_DAY_FIRST = re.compile(r"(\d{1,2})([-./])(\d{1,2})\2((?:19|20)\d\d)(?: .*)?")


class Joined(NamedTuple):
    """Pairs as rows of image, report, patient and exam; what did not match: file or row, reason."""

    rows: list[tuple[str, str, str, str]]
    unmatched: list[tuple[str, str]]
    notes: list[str]


def parse_match(match: str) -> dict[str, str]:
    """Read ``patient=MRN,eye,date=Visit``: the keys and, where named so, their columns.

    Raises:
        InputError: If a key is unknown, or the patient is not one.
    """
    parts = [part.partition("=") for part in match.split(",")]
    columns = {key.strip(): (name or key).strip() for key, _, name in parts}
    if not set(columns) <= set(KEYS) or "patient" not in columns:
        raise InputError(
            "--match does not say how scans and reports belong together",
            got=match,
            expected="patient, eye, date, or some of them; patient=MRN,date=Visit names columns",
        )
    return {key: columns[key] for key in KEYS if key in columns}


def join(
    scans: Path, reports: Path, columns: dict[str, str], report_column: str,
    bscan: Literal["central", "all"], key_file: Path | None, encoding: str | None,
) -> Joined:  # fmt: skip
    """Read headers and reports, and join them.

    Args:
        scans: A folder; scans are looked for in it and below.
        reports: A table of them, or a folder with DICOM structured reports.
        columns: Those of the keys, as :func:`parse_match` gives them.
        report_column: The column with the report.
        bscan: Which B-scans of a scan become pairs.
        key_file: Holds the secret of the pseudonyms; made where there is none.
        encoding: Of a CSV; None to find it out.

    Raises:
        InputError: If nothing is there, a column is missing, or days can be read in two ways.
    """
    files: list[Path] = []
    if reports.is_dir():
        table, files = read_structured_reports(reports, columns, report_column)
    else:
        table = read_table(reports, [report_column, *columns.values()], (), encoding)
    keys = _keys_of(table, columns, reports)
    found, unmatched = _read_all(scans, {path.resolve() for path in files})
    by_key: dict[Key, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        for each in _each_eye(key, columns):
            for n in range(1, len(each) + 1):  # of the patient, the eye, the day
                by_key[each[:n]].append(i)
    secret = None if key_file is None else _secret(key_file)
    rows, used = [], set()
    exams: dict[Key, str] = {}
    for scan in found:
        key = _key(columns, scan.patient, scan.eye, scan.day)
        why = _why_not(key, by_key, columns)
        if why:
            unmatched.append((f"{scan.path}#{scan.first}", why))
            continue
        (i,) = by_key[key]
        used.add(i)
        exam = exams.setdefault(key, f"exam-{len(exams) + 1:05d}")
        patient = scan.patient if secret is None else _pseudonym(secret, scan.patient)
        report = read_report(table.cells[report_column][i]).text
        rows += [(image, report, patient, exam) for image in _images(scan, bscan)]
    lone = [i for i in range(len(keys)) if i not in used]
    names = list(map(str, files)) or [f"row {row}" for row in table.rows]
    unmatched += [(names[i], "report without a scan") for i in lone]
    reasons = Counter(reason.partition(":")[0] for _, reason in unmatched)
    notes = [f"{len(found):,} scans, {len(keys):,} reports: {len(exams):,} exams matched"]
    notes += [f"not matched, {reason}: {n:,}" for reason, n in reasons.most_common()]
    return Joined(rows, unmatched, notes + table.notes)


def _read_all(folder: Path, but: set[Path]) -> tuple[list[Scan], list[tuple[str, str]]]:
    paths = sorted(p for p in folder.rglob("*") if is_image_file(p)) if folder.is_dir() else []
    paths = [path for path in paths if path.resolve() not in but]
    if not paths:
        raise InputError(f"{folder} holds no scan", expected="a folder with DICOM, E2E, VOL, ...")

    def read(path: Path) -> list[Scan] | str:
        try:
            return read_scans(path)
        except InputError as error:  # what was got may hold a name, a remedy never does
            return UNREADABLE + (f": {error.remedy}" if error.remedy else "")

    with ThreadPoolExecutor(4) as pool:
        read_ones = list(track(pool.map(read, paths), "reading headers", len(paths), "file"))
    scans = [scan for ones in read_ones if not isinstance(ones, str) for scan in ones]
    pairs = zip(paths, read_ones, strict=True)
    return scans, [(str(path), why) for path, why in pairs if isinstance(why, str)]


def _keys_of(table: Table, columns: dict[str, str], reports: Path) -> list[Key]:
    cells = {key: table.cells[name] for key, name in columns.items()}
    days = _read_days(cells["date"], reports) if "date" in cells else []
    eyes = [eye_of(cell) for cell in cells.get("eye", [])]
    return [
        _key(columns, patient, eyes[i] if eyes else "", days[i] if days else "")
        for i, patient in enumerate(cells["patient"])
    ]


def _key(columns: dict[str, str], patient: str, eye: str, day: str) -> Key:
    values = {"patient": patient_key(patient), "eye": eye, "date": day}
    return tuple(values[key] for key in columns)


def _each_eye(key: Key, columns: dict[str, str]) -> list[Key]:
    """A report of both eyes is one of each."""
    if "eye" not in columns or key[1] != "OU":
        return [key]
    return [(key[0], eye, *key[2:]) for eye in ("OD", "OS")]


def _why_not(key: Key, by_key: dict[Key, list[int]], columns: dict[str, str]) -> str:
    lacking = [name for name, value in zip(columns, key, strict=True) if not value]
    if lacking:
        return f"scan whose header does not say the {' and '.join(lacking)}"
    reports = by_key.get(key, [])
    if len(reports) == 1:
        return ""
    if reports:
        return "scan with several reports"
    known = next((n for n in range(len(key) - 1, 0, -1) if key[:n] in by_key), 0)
    return f"scan without a report of this {list(columns)[known]}"


def _images(scan: Scan, bscan: str) -> list[str]:
    if scan.bscans == 1 and scan.first == 0:
        return [str(scan.path.absolute())]
    central = scan.first + scan.bscans // 2
    taken = [central] if bscan == "central" else range(scan.first, scan.first + scan.bscans)
    return [f"{scan.path.absolute()}#{index}" for index in taken]


def _read_days(cells: Sequence[str], source: Path) -> list[str]:
    """Read days; whether 3/4 is in March or April is told by the column as a whole.

    Raises:
        InputError: If nothing tells it, or a cell is no day.
    """
    slashed = [m for cell in cells if (m := _DAY_FIRST.fullmatch(cell.strip()))]
    first = any(int(m[1]) > 12 for m in slashed) or any(m[2] == "." for m in slashed)
    second = any(int(m[3]) > 12 for m in slashed)
    if slashed and first == second:
        raise InputError(
            f"days in {source} can be read in two ways",
            got="both or neither of the two first numbers are above 12",
            expected="day first or month first throughout, or 2021-03-31",
            remedy="write the column as 2021-03-31",
        )
    days = []
    for cell in cells:
        iso, other = _ISO.fullmatch(cell.strip()), _DAY_FIRST.fullmatch(cell.strip())
        if iso:
            days.append(f"{iso[1]}-{int(iso[2]):02d}-{int(iso[3]):02d}")
        elif other:
            day, month = (other[1], other[3]) if first else (other[3], other[1])
            days.append(f"{other[4]}-{int(month):02d}-{int(day):02d}")
        else:
            days.append("")
    if cells and not any(days):
        raise InputError(f"no cell of the date column of {source} is a day", expected="2021-03-31")
    return days


def _secret(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    secret = path.read_text().strip()
    if len(secret) < 32:
        raise InputError(f"{path} holds no key", expected="32 signs or more; or no file yet")
    return secret.encode()


def _pseudonym(secret: bytes, patient: str) -> str:
    """Return what stands for a patient in every run with the same key; nobody can go back."""
    digest = hmac.new(secret, patient_key(patient).encode(), hashlib.sha256)
    return f"P{digest.hexdigest()[:12]}"
