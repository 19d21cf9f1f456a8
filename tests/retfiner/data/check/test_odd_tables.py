"""Tables that programs and people have changed on their way: check and training read them alike."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.manifest import Manifest, read_splits
from tests.helpers.refinement import write_image

PLACES = ("über der Fovea", "nasal")
FINDINGS = ("Drusen", "Flüssigkeit", "Ödem", "Atrophie")
REPORTS = [
    f"{FINDINGS[k // 2]} {PLACES[k % 2]}, Dicke {250 + 3 * k}.5 µm, „größer“ – früher"
    for k in range(8)
]
MEANT = {f"{k}.png": (REPORTS[k], f"{k // 2 + 1:04d}") for k in range(8)}
"""Image -> report and patient, however they are written."""


def cells(
    image: str = "scans/{}.png", report: str = "{}", patient: str = "{:04d}"
) -> list[list[str]]:
    return [
        [image.format(k), report.format(REPORTS[k]), patient.format(k // 2 + 1)] for k in range(8)
    ]


def text(
    rows: list[list[str]],
    separator: str = ",",
    header: str = "image,report,patient_id",
    end: str = "\r\n",
) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, lineterminator=end)
    writer.writerows([header.split(","), *rows])
    return stream.getvalue()


def workbook(path: Path) -> None:
    """Write patients as numbers that are shown with four digits."""
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["image", "report", "patient_id"])
    for image, report, patient in cells():
        book.active.append([image, report, int(patient)])
    for cell in book.active["C"]:
        cell.number_format = "0000"
    book.save(path)


def parquet(path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pd.DataFrame(cells(), columns=["image", "report", "patient_id"]).to_parquet(path)


def as_rtf(report: str) -> str:
    """Write text as WordPad does: cp1252 by its bytes, behind a table of fonts."""
    codes = "".join(s if s.isascii() else rf"\'{s.encode('cp1252')[0]:02x}" for s in report)
    fonts = r"{\fonttbl{\f0\fswiss\fcharset0 Arial;}}"
    return r"{\rtf1\ansi\ansicpg1252\deff0" + fonts + r"\pard\f0\fs20 " + codes + r"\par }"


def as_html(report: str) -> str:
    return f"<html><style>p {{margin: 0}}</style><body><p>{html.escape(report)}</p></body></html>"


def as_cda(report: str) -> str:
    """Write text as clinical documents of HL7 do."""
    return f'<?xml version="1.0"?><section><title/><text>{html.escape(report)}</text></section>'


def each(change: Callable[[str], str]) -> list[list[str]]:
    return [[image, change(report), patient] for image, report, patient in cells()]


def with_spellings() -> list[list[str]]:
    return [[a, b, f"{int(c)}.0" if k % 2 else c] for k, (a, b, c) in enumerate(cells())]


ESCAPED = "".join(f'"{a}","{b} \\"x\\"","{c}"\n' for a, b, c in cells())
INDEXED = [[str(k), *row] for k, row in enumerate(cells())]

WRITTEN: dict[str, tuple[bytes | str | Callable[[Path], None], str]] = {
    "as it should be": (text(cells()), ""),
    "Excel, German": (text(cells(), ";").encode("cp1252"), "cp1252; parted by semicolons"),
    "Excel, Unicode text": (text(cells(), "\t").encode("utf-16"), "utf-16; parted by tabs"),
    "UTF-16 without a mark": (text(cells(), "\t").encode("utf-16-be"), "encoding utf-16-be"),
    "Excel, Mac": (text(cells(), ";", end="\r").encode("mac_roman"), "encoding mac_roman"),
    "said separator": ("sep=|\r\n" + text(cells(), "|"), "parted by vertical bars"),
    "two marks": ("\ufeff\ufeff" + text(cells()), ""),
    "a title": ("OCT 2024,,\r\n,,\r\n" + text(cells()), "the header is in row 3"),
    "columns": (text(cells(), header="IMAGE,\u200bReport ,Patient\u00a0ID"), "'IMAGE' as image"),
    "index of pandas": (text(INDEXED, header=",image,report,patient_id"), ""),
    "workbook": (workbook, "Excel"),
    "Parquet": (parquet, "Parquet"),
    "escaped quotes": ("image,report,patient_id\n" + ESCAPED, 'are written \\"'),
    "backslashes": (text(cells("scans\\{}.png")), "in place of"),
    "of Windows": (text(cells("E:\\OCT 1\\scans\\{}.png")), "begin with E:\\OCT 1, which is not"),
    "of a server": (text(cells("\\\\nas\\oct\\scans\\{}.png")), "which is not here"),
    "of Linux": (text(cells("/home/x/scans/{}.png")), "begin with /home/x, which is not here"),
    "another case": (text(cells("SCANS/{}.PNG")), "another case"),
    "quoted paths": (text(cells('"scans/{}.png"')), ""),
    "line ends of Excel": (text(cells(report="{}_x000D_\n")), "Excel's _x000D_"),
    "RTF": (text(each(as_rtf)), "taken out of 8 reports: RTF"),
    "HTML": (text(each(as_html)), "taken out of 8 reports: HTML or XML"),
    "HL7": (text(each(as_cda)), "taken out of 8 reports: HTML or XML"),
    "entities": (text(each(lambda r: r.replace("ü", "&uuml;"))), "reports: HTML or XML"),
    "formulas": (text(cells('="scans/{}.png"', patient='="{:04d}"')), ""),
    "apostrophes": (text(cells(patient="'{:04d}")), ""),
    "signs nobody sees": (text(cells(patient="\u200b{:04d}\u00a0")), ""),
    "spellings": (text(with_spellings()), "4 patients are written in several ways"),
    "decoded twice": (text(cells()).encode().decode("latin1"), "decoded wrongly"),
}
"""A table as it is written, and what has to be said of it."""


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_table_is_read_alike_and_the_same_is_said_of_it(tmp_path, kind):
    content, said = WRITTEN[kind]
    for k in range(8):
        write_image(tmp_path / "scans" / f"{k}.png", k)
    table, checked = tmp_path / "t.csv", tmp_path / "checked"
    if callable(content):
        content(table)
    else:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    direct = read_splits(table, val_fraction=0.5)
    summary = prepare_pairs(
        PreparePairsConfig(csv=table, output=checked, val_fraction=0.5, num_workers=0)
    )
    prepared = read_splits(checked / "train.csv", checked / "val.csv")
    assert pairs_of(*direct) == pairs_of(*prepared) == meant_by(kind)
    for first, second in zip(direct, prepared, strict=True):
        assert pairs_of(first) == pairs_of(second)  # the split is the same, too

    notes = direct[0].notes
    assert said in " | ".join(notes)
    assert bool(notes) == bool(said)
    told = [*summary.notes, *summary.warnings, *(problem.kind for problem in summary.problems)]
    for note in notes:
        assert note.removeprefix("note: ").split(": 8 rows")[0] in told


def pairs_of(*parts: Manifest) -> dict[str, tuple[str, str]]:
    pairs = {}
    for part in parts:
        assert part.patients is not None
        for image, report, patient in zip(part.images, part.reports, part.patients, strict=True):
            pairs[image.path.name] = report, patient
    return pairs


def meant_by(kind: str) -> dict[str, tuple[str, str]]:
    if kind == "escaped quotes":
        return {image: (f'{report} "x"', patient) for image, (report, patient) in MEANT.items()}
    if kind == "decoded twice":  # what it was cannot be told for sure
        return {
            image: (" ".join(report.encode().decode("latin1").split()), patient)
            for image, (report, patient) in MEANT.items()
        }
    return MEANT
