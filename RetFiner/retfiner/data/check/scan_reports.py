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
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from retfiner.common.errors import InputError
from retfiner.common.eyes import eye_of
from retfiner.common.patient_names import patient_key
from retfiner.common.progress import track
from retfiner.data.check.structured_reports import read_structured_reports
from retfiner.data.report_text import read_report
from retfiner.data.table_file import Table, read_table_or
from retfiner.vision.images import ImageAddress, list_image_files
from retfiner.vision.images.dicom import is_dicom
from retfiner.vision.images.headers import read_scans, slice_of
from retfiner.vision.images.kinds import seen_kind
from retfiner.vision.images.read_as import OCT

KEYS = ("patient", "eye", "date")
UNREADABLE = "file that cannot be read"
Key = tuple[str, ...]
_ISO = re.compile(r"((?:19|20)\d\d)(?:[-./年](\d{1,2})[-./月](\d{1,2})日?(?:[ T].*)?"
                  r"|(\d\d)(\d\d)(?:\d{4}(?:\d\d)?)?(?:[ T.].*)?)")  # fmt: skip
_DAY_FIRST = re.compile(r"(\d{1,2})([-./])(\d{1,2})\2((?:19|20)\d\d)(?:[ ,].*)?"
                        r"|(\d{1,2})([./])(\d{1,2})\6(\d\d)(?:[ ,].*)?")  # fmt: skip
_IN_WORDS = re.compile(r"(\d{1,2})(?:er|º)?[. -]*(?:de )?([^\W\d]{3,})[., -]*(?:de )?"
                       r"((?:19|20)\d\d)(?:[ ,].*)?"
                       r"|([^\W\d]{3,})\.? ?(\d{1,2})(?:st|nd|rd|th)?,? ((?:19|20)\d\d)"
                       r"(?:[ ,].*)?")  # fmt: skip
_MONTHS = ("jan jän ene gen", "feb fév fev", "mar mär mrz maa", "apr avr abr", "may mai mag mei",
           "jun juin giu", "jul juil lug", "aug août aout ago", "sep set", "oct okt ott out", "nov",
           "dec dez déc dic")  # fmt: skip
"""How names of months begin in English, German, French, Spanish, Italian, Portuguese and Dutch."""


class _Volume(NamedTuple):
    """Images that were taken together: B-scans of a file, or a DICOM series of single ones."""

    images: tuple[str, ...]
    patient: str
    eye: str
    day: str
    kind: str


class Joined(NamedTuple):
    """Pairs as rows of image, report, patient, eye and exam; what did not match, and why."""

    rows: list[tuple[str, str, str, str, str]]
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
        match = ",".join(f"{key}=NAME" for key in columns)
        remedy = f"say what yours are called: --match {match} --report_column NAME"
        names = [report_column, *columns.values()]
        table = read_table_or(remedy, reports, names, encoding=encoding)
    keys = _keys_of(table, columns, reports)
    found, unmatched = _read_all(scans, {path.resolve() for path in files})
    by_key: dict[Key, list[int]] = defaultdict(list)
    whole = [i for i, row in enumerate(table.rows) if row not in table.broken]
    for i in whole:
        for each in _each_eye(keys[i], columns):
            for n in range(1, len(each) + 1):  # of the patient, the eye, the day
                by_key[each[:n]].append(i)
    secret = None if key_file is None else _secret(key_file)
    rows, used, days = [], set(), defaultdict(set)
    exams: dict[Key, str] = {}
    cells = table.cells[report_column]
    with_bscans = {_key(columns, *volume[1:4]) for volume in found if volume.kind == OCT}
    for volume in found:
        key = _key(columns, *volume[1:4])
        why = _why_not(key, by_key, columns, cells)
        if not why and bscan == "central" and volume.kind not in ("", OCT) and key in with_bscans:
            why = "image of another kind beside B-scans, which --bscan all takes"
        if why:
            unmatched.append((volume.images[0], why))
            continue
        used.update(by_key[key])
        exam = exams.setdefault(key, f"exam-{len(exams) + 1:05d}")
        days[key].add(volume.day)
        patient = volume.patient if secret is None else _pseudonym(secret, volume.patient)
        report = read_report(cells[by_key[key][0]]).text
        taken = volume.images if bscan == "all" else [volume.images[len(volume.images) // 2]]
        rows += [(image, report, patient, volume.eye, exam) for image in taken]
    names = list(map(str, files)) or [f"row {row}" for row in table.rows]
    unmatched += [
        (names[i], _why_alone(keys[i], columns, table.broken.get(row)))
        for i, row in enumerate(table.rows)
        if i not in used
    ]
    reasons = Counter(reason.partition(":")[0] for _, reason in unmatched)
    notes = [f"{len(found):,} scans, {len(keys):,} reports: {len(exams):,} exams matched"]
    if both := sum("eye" in columns and keys[i][1] == "OU" for i in used):
        notes.append(f"reports of both eyes: {both:,}, each whole at both; see what a cut leaves")
    if later := sum(len(seen - {""}) > 1 for seen in days.values()):  # never where days are matched
        notes.append(f"reports that stand for scans of several days: {later:,}; with a date in"
                     " --match each keeps to its own")  # fmt: skip
    notes += [f"not matched, {reason}: {n:,}" for reason, n in reasons.most_common()]
    return Joined(rows, unmatched, notes + table.notes)


def _read_all(folder: Path, but: set[Path]) -> tuple[list[_Volume], list[tuple[str, str]]]:
    paths = list_image_files(folder) if folder.is_dir() else []
    paths = [path for path in paths if path.resolve() not in but]
    if not paths:
        raise InputError(f"{folder} holds no scan", expected="a folder with DICOM, E2E, VOL, ...")
    with ThreadPoolExecutor(4) as pool:
        read_ones = list(track(pool.map(_read_one, paths), "reading headers", len(paths), "file"))
    volumes: dict[object, list[tuple[int, _Volume]]] = defaultdict(list)
    for number, found in enumerate(read_ones):
        for volume, (series, place) in [] if isinstance(found, str) else found:
            name = (series, *volume[1:]) if series else (number, volume.images[0])
            volumes[name].append((place, volume))
    whole = []
    for placed in volumes.values():
        ordered = [volume for _, volume in sorted(placed, key=itemgetter(0))]
        images = tuple(image for volume in ordered for image in volume.images)
        whole.append(ordered[0]._replace(images=images))
    pairs = zip(paths, read_ones, strict=True)
    return whole, [(str(path), why) for path, why in pairs if isinstance(why, str)]


def _read_one(path: Path) -> list[tuple[_Volume, tuple[str, int]]] | str:
    """Read the volumes of a file, each with its series and number if it is one image of DICOM."""
    try:
        place = slice_of(path) if is_dicom(path) else ("", 0)
        if place is None:
            return "DICOM file without an image"  # a list of contents, a document
        scans = read_scans(path)
        kind = seen_kind(ImageAddress(path))
        if scans[0].bscans > 1:
            place = ("", 0)
    except InputError as error:  # what was got may hold a name, a remedy never does
        return UNREADABLE + (f": {error.remedy}" if error.remedy else "")
    found = []
    for scan in scans:
        file, whole = str(path.absolute()), scan.first == 0 and scan.bscans == 1
        indices = range(scan.first, scan.first + scan.bscans)
        images = (file,) if whole else tuple(f"{file}#{index}" for index in indices)
        eye = "" if scan.eye == "OU" else scan.eye  # no scan is of both
        found.append((_Volume(images, scan.patient, eye, scan.day, kind), place))
    return found


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
    """Give a report of both eyes to each of them, whole."""
    if "eye" not in columns or key[1] != "OU":
        return [key]
    return [(key[0], eye, *key[2:]) for eye in ("OD", "OS")]


def _why_not(
    key: Key, by_key: dict[Key, list[int]], columns: dict[str, str], cells: Sequence[str]
) -> str:
    lacking = [name for name, value in zip(columns, key, strict=True) if not value]
    if lacking:
        return f"scan whose header does not say the {' and '.join(lacking)}"
    reports = by_key.get(key, [])
    if len({cells[i].strip() for i in reports}) == 1:
        return ""
    if reports:
        return "scan with several reports"
    known = next((n for n in range(len(key) - 1, 0, -1) if key[:n] in by_key), 0)
    return f"scan without a report of this {list(columns)[known]}"


def _why_alone(key: Key, columns: dict[str, str], broken: str | None) -> str:
    if broken is not None:
        return f"row whose cells cannot be told apart: {broken}"
    lacking = [name for name, value in zip(columns, key, strict=True) if not value]
    if lacking:
        return f"report whose {' and '.join(lacking)} is empty or not understood"
    return "report without a scan"


def _read_days(cells: Sequence[str], source: Path) -> list[str]:
    """Read days; whether 3/4 is in March or April is told by the column as a whole.

    Raises:
        InputError: If nothing tells it, or no cell is a day.
    """
    slashed = [m for cell in cells if (m := _DAY_FIRST.fullmatch(cell.strip()))]
    parts = [(m[1] or m[5], m[2] or m[6], m[3] or m[7]) for m in slashed]
    first = any(int(one) > 12 for one, *_ in parts) or any(sign == "." for _, sign, _ in parts)
    second = any(int(two) > 12 for *_, two in parts)
    if slashed and first == second:
        raise InputError(
            f"days in {source} can be read in two ways",
            got="both or neither of the two first numbers are above 12",
            expected="day first or month first throughout, or 2021-03-31",
            remedy="write the column as 2021-03-31",
        )
    days = [_read_day(cell.strip(), first) for cell in cells]
    if cells and not any(days):
        sample = next((cell for cell in cells if cell.strip()), "")
        raise InputError(
            f"no cell of the date column of {source} is a day",
            got=re.sub(r"[^\W\d]", "x", re.sub(r"\d", "9", sample[:40])) or "empty cells",
            expected="2021-03-31, 31.3.2021, 3/31/2021 or 31 March 2021",
            remedy="format the column as a date in the spreadsheet, and save the table anew",
        )
    return days


def _read_day(cell: str, day_first: bool) -> str:
    """Read a day as ISO 8601 has it; nothing for what is none."""
    if iso := _ISO.fullmatch(cell):
        parts = iso[1], iso[2] or iso[4], iso[3] or iso[5]
    elif other := _DAY_FIRST.fullmatch(cell):
        one, two = other[1] or other[5], other[3] or other[7]
        day, month = (one, two) if day_first else (two, one)
        parts = other[4] or f"20{other[8]}", month, day
    elif words := _IN_WORDS.fullmatch(cell):
        name = (words[2] or words[4]).casefold()
        months = (
            n for n, starts in enumerate(_MONTHS, 1) if name.startswith(tuple(starts.split()))
        )
        parts = words[3] or words[6], str(next(months, 0)), words[1] or words[5]
    else:
        return ""
    try:
        return date(*map(int, parts)).isoformat()
    except ValueError:
        return ""


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
