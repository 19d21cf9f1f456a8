"""Scans by their headers, joined with an export of reports: what matches, what does not, why."""

import struct
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset

from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.common.eyes import eye_of
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.check.scan_reports import _read_days, join
from retfiner.vision.images.headers import about_dicom, read_scans
from tests.helpers.image_files import (
    as_deep,
    dicom,
    topcon_chunk,
    topcon_raw,
    write_dicom,
    write_e2e,
    write_img,
    write_topcon,
    write_vol,
)
from tests.helpers.refinement import read_csv

RNG = np.random.default_rng(0)
NAMES = ("Zaphod", "Beeblebrox", "7001", "007002", "MRN-3", "7004")


def values(kind, count=3, height=16, width=24):
    high = np.iinfo(kind).max
    return RNG.integers(0, high, (count, height, width), dtype=kind, endpoint=True)


def ticks(day):
    return int((datetime.fromisoformat(day) - datetime(1601, 1, 1)).total_seconds() * 10**7)


def e2e_patient(number, name=b"Zaphod", surname=b"Beeblebrox"):
    return (name.ljust(31, b"\0") + surname.ljust(66, b"\0") + bytes(4) + b"M"
            + number.encode().ljust(25, b"\0"))  # fmt: skip


def write_both_eyes(path, number="7001", day="2021-03-12"):
    """An .e2e of two series: three B-scans of the right eye, five of the left."""
    about = [
        (1, 9, e2e_patient(number)),
        (1, 11, bytes(14) + b"R\0"), (2, 11, bytes(14) + b"L\0"),
        *((k, 10004, bytes(88) + struct.pack("<Q", ticks(day))) for k in (1, 2)),
    ]  # fmt: skip
    bits = {1: values(np.uint16, 3) % 60000, 2: values(np.uint16, 5) % 60000}
    return write_e2e(path, bits, chunks=about)


def write_scans(folder):
    """Scans of four patients in four formats."""
    folder.mkdir()
    write_both_eyes(folder / "both.e2e")
    write_vol(folder / "right.vol", RNG.random((4, 16, 24)).astype(np.float32), patient="007002")
    capture = topcon_chunk("@PATIENT_INFO_02", b"MRN-3".ljust(615, b"\0")) + topcon_chunk(
        "@CAPTURE_INFO_02", b"\1".ljust(106, b"\0") + struct.pack("<6H", 2020, 12, 1, 9, 0, 0)
    )
    write_topcon(folder / "left.fds", capture, topcon_raw(values(np.uint16)))
    for i, eye in enumerate(("R", "L", "")):
        image = dicom(values(np.uint8), PatientID="7004", PatientName="Zaphod^Beeblebrox",
                      ImageLaterality=eye, AcquisitionDateTime="20210405101112")  # fmt: skip
        write_dicom(folder / "dicom" / f"{i}", image)
    (folder / "cut.vol").write_bytes(b"HSF-OCT-103")
    return folder


def test_what_headers_say(tmp_path):
    scans = write_scans(tmp_path / "scans")
    said = {p.name: [s[1:] for s in read_scans(p)] for p in sorted(scans.rglob("*"))
            if p.is_file() and p.name != "cut.vol"}  # fmt: skip
    assert said == {
        "both.e2e": [(0, 3, "7001", "OD", "2021-03-12"), (3, 5, "7001", "OS", "2021-03-12")],
        "right.vol": [(0, 4, "007002", "OD", "2012-12-14")],
        "left.fds": [(0, 3, "MRN-3", "OS", "2020-12-01")],
        "0": [(0, 3, "7004", "OD", "2021-04-05")],
        "1": [(0, 3, "7004", "OS", "2021-04-05")],
        "2": [(0, 3, "7004", "", "2021-04-05")],
    }
    name = "CZMI1_Macular Cube 200x200_2-28-2019_10-1-2_OD_sn1_cube_z.img"
    cube = write_img(tmp_path / name, as_deep(np.zeros((200, 2, 200), np.uint8)))
    assert read_scans(cube)[0][1:] == (0, 200, "CZMI1", "OD", "2019-02-28")
    assert [eye_of(word) for word in ("R.", "links", "双眼", "x")] == ["OD", "OS", "OU", ""]
    words = ("O.D.", "left eye", "beide Augen", "Rechtes Auge", "ojo izquierdo", "1")
    assert [eye_of(word) for word in words] == ["OD", "OS", "OU", "OD", "OS", ""]
    words = ("re.", "li.", "bds.", "RA", "LA", "BA", "R/L", "OD + OS", "oculus dexter", "R/R")
    assert [eye_of(word) for word in words] == ["OD", "OS", "OU"] * 2 + ["OU", "OU", "OD", ""]


def coded(meaning):
    code = Dataset()
    code.CodeMeaning = meaning
    return code


def framed(*eyes):
    groups = []
    for eye in eyes:
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = eye
        group.FrameAnatomySequence = [anatomy]
        groups.append(group)
    return groups


def test_eye_and_day_wherever_dicom_has_them():
    region = coded("Retina")
    region.AnatomicRegionModifierSequence = [coded("Left")]
    for elements, eye in (
        ({"AnatomicRegionSequence": [region]}, "OS"),
        ({"ImageLaterality": "U", "Laterality": "R"}, "OD"),
        ({"SharedFunctionalGroupsSequence": framed("L")}, "OS"),
        ({"PerFrameFunctionalGroupsSequence": framed("R", "R", "L")}, "OU"),
    ):
        assert about_dicom(dicom(values(np.uint8), **elements))[1] == eye
    days = {"StudyDate": "20210331", "ContentDate": "20210402"}  # a report is written later
    assert about_dicom(dicom(values(np.uint8), **days))[2] == "2021-03-31"
    with warnings.catch_warnings(action="ignore"):
        assert about_dicom(dicom(values(np.uint8), StudyDate="2021.03.31"))[2] == "2021-03-31"


def export(path, rows):
    table = pd.DataFrame(rows, columns=["MRN", "Side", "Visit", "text"])
    if path.suffix == ".xlsx":
        table["Visit"] = pd.to_datetime(table["Visit"])
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep=";")
    return path


REPORTS = [
    ["7001", "right", "2021-03-12", r"{\rtf1\ansi Drusen in the fovea.\par}"],
    ["7001", "left", "2021-03-12", "<p>Subretinal&nbsp;fluid nasally.</p>"],
    ["7002", "R", "2012-12-14", "Epiretinal membrane."],
    ["MRN-3", "OD", "2020-12-01", "Of the other eye."],
    ["7004", "beide", "2021-04-05", "No fluid in both eyes."],
    ["9999", "R", "2021-01-01", "Of nobody here."],
]


def run(folder, reports, *more):
    words = ["--scans", str(folder / "scans"), "--reports", str(reports), "--report_column", "text",
             "--match", "patient=MRN,eye=Side,date=Visit", "--output", str(folder / "out"),
             "--num_workers", "0", "--val_fraction", "0.3", *more]  # fmt: skip
    return prepare_pairs(parse(PreparePairsConfig, "", words))


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_pairs_of_scans_and_reports(tmp_path, capsys, suffix):
    scans = write_scans(tmp_path / "scans")
    run(tmp_path, export(tmp_path / f"reports{suffix}", REPORTS))
    rows = read_csv(tmp_path / "out" / "pairs.csv")
    assert [row[:3] for row in rows] == [
        ["../scans/both.e2e#1", "Drusen in the fovea.", "7001"],
        ["../scans/both.e2e#5", "Subretinal fluid nasally.", "7001"],
        ["../scans/dicom/0#1", "No fluid in both eyes.", "7004"],
        ["../scans/dicom/1#1", "No fluid in both eyes.", "7004"],
        ["../scans/right.vol#2", "Epiretinal membrane.", "007002"],
    ]
    assert len({row[3] for row in rows}) == 5, "an exam each"
    out = capsys.readouterr().out
    said = " ".join(out.split())
    assert "7 scans, 6 reports: 5 exams matched" in said
    for reason in ("file that cannot be read: 1", "header does not say the eye: 1",
                   "without a report of this eye: 1", "report without a scan: 2"):  # fmt: skip
        assert reason in said
    assert not [name for name in NAMES if name in said], "nothing that identifies is printed"
    unmatched = read_csv(tmp_path / "out" / "unmatched.csv")
    assert ["row 7", "report without a scan"] in unmatched
    assert [
        str(scans / "dicom" / "2") + "#0",
        "scan whose header does not say the eye",
    ] in unmatched


def test_all_bscans_of_a_scan_are_one_exam_and_a_file_is_refused_with_a_remedy(tmp_path, capsys):
    scans = write_scans(tmp_path / "scans")
    (scans / "cut.e2e").write_bytes((scans / "both.e2e").read_bytes()[:60])
    run(tmp_path, export(tmp_path / "reports.csv", REPORTS), "--bscan", "all")
    assert "--group_column exam" in capsys.readouterr().out.partition("Next:")[2]
    exams = pd.read_csv(tmp_path / "out" / "pairs.csv")["exam"]
    assert sorted(exams.value_counts()) == [3, 3, 3, 4, 5]
    reasons = dict(read_csv(tmp_path / "out" / "unmatched.csv"))
    assert reasons[str(scans / "cut.e2e")] == "file that cannot be read: export it anew from HEYEX"


def test_a_report_that_was_cut_at_a_separator_is_of_no_scan(tmp_path, capsys):
    write_scans(tmp_path / "scans")
    reports = export(tmp_path / "reports.csv", REPORTS)
    reports.write_text(reports.read_text().replace("Epiretinal", "No drusen; epiretinal"))
    run(tmp_path, reports)
    assert len(read_csv(tmp_path / "out" / "pairs.csv")) == 4
    told = "row whose cells cannot be told apart"
    assert f"not matched, {told}: 1" in " ".join(capsys.readouterr().out.split())
    reasons = dict(read_csv(tmp_path / "out" / "unmatched.csv"))
    assert reasons["row 4"].startswith(f"{told}: 5 fields where the header has 4")


def test_pseudonyms_are_stable_and_tell_nothing(tmp_path):
    write_scans(tmp_path / "scans")
    reports = export(tmp_path / "reports.csv", REPORTS)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 2)
    run(tmp_path, reports, "--pseudonym_key", str(key), "--bscan", "all")
    first = read_csv(tmp_path / "out" / "pairs.csv")
    assert len(first) == 3 + 5 + 3 + 3 + 4
    assert {len(row[2]) for row in first} == {13}
    tables = (tmp_path / "out").glob("*.csv")
    written = "".join(p.read_text() for p in tables)
    assert not [name for name in NAMES if name in written]
    run(tmp_path, reports, "--pseudonym_key", str(key), "--bscan", "all", "--overwrite")
    assert read_csv(tmp_path / "out" / "pairs.csv") == first
    new = tmp_path / "secret" / "new"
    run(tmp_path, reports, "--pseudonym_key", str(new), "--bscan", "all", "--overwrite")
    assert new.stat().st_mode & 0o077 == 0
    assert len(new.read_text()) == 64
    assert not {row[2] for row in first} & {row[2] for row in read_csv(tmp_path / "out/pairs.csv")}


def test_a_report_that_names_somebody_stays_in_the_joined_table_which_is_said(tmp_path, capsys):
    write_scans(tmp_path / "scans")
    named = [*REPORTS[0][:3], "Drusen. Signed by Dr. Quacksalber."]
    run(tmp_path, export(tmp_path / "reports.csv", [named, *REPORTS[1:]]), "--deidentify")
    files = [path for path in (tmp_path / "out").iterdir() if b"Quacks" in path.read_bytes()]
    assert [path.name for path in files] == ["joined.csv"]
    assert "joined.csv holds every report" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_joined_is_said(tmp_path):
    write_scans(tmp_path / "scans")
    none = export(tmp_path / "none.csv", REPORTS[-1:])
    with pytest.raises(InputError, match=r"no scan of .* matches") as caught:
        run(tmp_path, none)
    assert "without a report of this patient: 6" in str(caught.value)
    assert not (tmp_path / "out" / "joined.csv").exists()
    with pytest.raises(InputError, match="does not say how"):
        run(tmp_path, none, "--match", "eye,date")
    with pytest.raises(InputError, match="go together"):
        parse(PreparePairsConfig, "", ["--scans", "x", "--output", "y"])
    twice = export(tmp_path / "twice.csv", [*REPORTS, REPORTS[1], [*REPORTS[0][:3], "Another."]])
    run(tmp_path, twice)  # one is there twice, and of one eye and day there are two
    reasons = [row[1] for row in read_csv(tmp_path / "out" / "unmatched.csv")]
    assert reasons.count("scan with several reports") == 1


@pytest.mark.parametrize(("match", "said"), [("patient,eye", 1), ("patient", 1),
                                             ("patient,eye,date", 0)])  # fmt: skip
def test_one_report_for_scans_of_several_days_is_said(tmp_path, match, said):
    for day in ("2021-03-12", "2022-03-12"):
        (tmp_path / "scans" / day).mkdir(parents=True)
        write_both_eyes(tmp_path / "scans" / day / "both.e2e", day=day)
    table = tmp_path / "reports.csv"
    pd.DataFrame({"patient": ["7001"], "eye": ["R"], "date": ["2021-03-12"],
                  "text": ["Drusen."]}).to_csv(table, index=False)  # fmt: skip
    columns = {key: key for key in match.split(",")}
    joined = join(tmp_path / "scans", table, columns, "text", "central", None, None)
    assert len(joined.rows) == {"patient,eye": 2, "patient": 4, "patient,eye,date": 1}[match]
    notes = [note for note in joined.notes if "scans of several days" in note]
    assert len(notes) == said and all("days: 1;" in note for note in notes)


@pytest.mark.parametrize(
    ("right", "left", "both"),
    [
        ("OD", "OG", "ODG"), ("D", "G", "OD et OG"), ("œil droit", "œil gauche", "les deux yeux"),
        ("ojo derecho", "OI", "ambos ojos"), ("OD", "OE", "AO"), ("olho direito", "E", "OD e OE"),
        ("occhio destro", "sn", "OD/OS"), ("R", "L", "R+L"), ("rechtes Auge", "LA", "beide Augen"),
        ("右眼", "左眼", "双眼"), ("oko prawe", "lewe", "B"), ("правый глаз", "левый", "OU"),
    ],
)  # fmt: skip
def test_eyes_as_clinics_call_them(right, left, both):
    assert [eye_of(word) for word in (right, left, both)] == ["OD", "OS", "OU"]


def test_days_are_read_in_one_way_or_not_at_all(tmp_path):
    assert _read_days(["3/4/2021", "3/14/2021"], tmp_path) == ["2021-03-04", "2021-03-14"]
    assert _read_days(["3/4/2021", "14/3/2021"], tmp_path) == ["2021-04-03", "2021-03-14"]
    assert _read_days(["03.04.2021", "20210403", ""], tmp_path) == ["2021-04-03"] * 2 + [""]
    for cells in (["3/4/2021"], ["14/3/2021", "3/14/2021"]):
        with pytest.raises(InputError, match="two ways"):
            _read_days(cells, tmp_path)
    for cells, shape in ((["soon"], "xxxx"), (["44286"], "99999")):  # Excel's numbers of days
        with pytest.raises(InputError, match="is a day") as caught:
            _read_days(cells, tmp_path)
        assert shape in str(caught.value)


@pytest.mark.parametrize(
    "cell",
    [
        *("2021-03-31T09:30:00Z", "2021/3/31", "2021年3月31日", "31.03.2021 09:30", "31.3.21"),
        *("20210331", "202103310930", "20210331093000"),
        *("31 March 2021", "31-Mar-2021", "31. März 2021", "Mar 31, 2021", "March 31st, 2021"),
        *("31 de marzo de 2021", "31 marzo 2021", "31 de março de 2021", "31 maart 2021"),
    ],
)
def test_days_as_clinics_write_them(cell, tmp_path):
    assert _read_days([cell], tmp_path) == ["2021-03-31"]
    assert _read_days([cell, "31.02.2021", "2021111"], tmp_path)[1:] == ["", ""]


def write_series(folder):
    """Two eyes in DICOM files of one B-scan each, and the infrared image of one beside them."""
    for i in range(10):
        eye, number = "RL"[i % 2], i // 2
        image = dicom(values(np.uint8, 1)[0], PatientID="7", ImageLaterality=eye,
                      AcquisitionDateTime="20210405101112", SeriesInstanceUID=f"1.2.{i % 2}",
                      InstanceNumber=9 - number)  # fmt: skip
        write_dicom(folder / f"{i}", image)
    infrared = dicom(values(np.uint8, 1)[0], PatientID="7", ImageLaterality="R", Modality="OP",
                     ImageType=["ORIGINAL", "PRIMARY", "", "IR"], SeriesInstanceUID="1.2.9",
                     StudyDate="20210405")  # fmt: skip
    infrared.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    write_dicom(folder / "infrared", infrared)
    (folder / "._0").write_bytes(b"\0\5\x16\7")


def test_a_series_of_single_images_is_one_scan(tmp_path):
    scans = tmp_path / "scans"
    write_series(scans)
    reports = [["7", "R", "2021-04-05", "Drusen."], ["7", "L", "2021-04-05", "Cysts."],
               ["8", "?", "2021-04-05", "Of an eye that is not known."]]  # fmt: skip
    table = export(tmp_path / "reports.csv", reports)
    columns = {"patient": "MRN", "eye": "Side", "date": "Visit"}
    central = join(scans, table, columns, "text", "central", None, None)
    taken = [(Path(image).name, report, eye) for image, report, _, eye, _ in central.rows]
    assert taken == [("4", "Drusen.", "OD"), ("5", "Cysts.", "OS")]
    assert dict(central.unmatched) == {
        str(scans / "infrared"): "image of another kind beside B-scans, which --bscan all takes",
        "row 4": "report whose eye is empty or not understood",
    }
    whole = join(scans, table, columns, "text", "all", None, None)
    names = [Path(image).name for image, *_ in whole.rows]
    assert names == ["8", "6", "4", "2", "0", "9", "7", "5", "3", "1", "infrared"]
    assert len({exam for *_, exam in whole.rows}) == 2


def test_missing_columns_are_named_by_match(tmp_path):
    write_series(tmp_path / "scans")
    table = export(tmp_path / "reports.csv", REPORTS)
    with pytest.raises(InputError, match="--match patient=NAME,eye=NAME,date=NAME"):
        run(tmp_path, table, "--match", "patient,eye,date")
