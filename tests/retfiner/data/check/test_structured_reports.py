"""DICOM structured reports become reports of scans."""

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from retfiner.common.errors import InputError
from retfiner.data.check.structured_reports import read_structured_reports
from tests.helpers.image_files import bscans, dicom, write_dicom
from tests.helpers.refinement import read_csv
from tests.retfiner.data.check.test_scan_reports import run

COLUMNS = {"patient": "MRN", "eye": "Side", "date": "Visit"}


def code(meaning, value="1"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", meaning
    return item


def item(kind, name, relation="CONTAINS", **values):
    made = Dataset()
    made.RelationshipType, made.ValueType = relation, kind
    made.ConceptNameCodeSequence = [code(name)]
    for key, value in values.items():
        setattr(made, key, value)
    return made


def millimetres(number):
    measured = Dataset()
    measured.NumericValue = number
    measured.MeasurementUnitsCodeSequence = [code("micrometer", "um")]
    return [measured]


def write_report(path, patient="7001", eye="R", laterality=None, words="Drusen in the fovea"):
    observer = item("PNAME", "Person Observer Name", "HAS OBS CONTEXT", PersonName="Zaphod^B")
    language = item("CODE", "Language", "HAS CONCEPT MOD", ConceptCodeSequence=[code("German")])
    findings = item("CONTAINER", "Findings")
    findings.ContentSequence = [
        item("TEXT", "Finding", TextValue=words),
        item("CODE", "Stage", ConceptCodeSequence=[code("intermediate AMD")]),
        item("NUM", "Central thickness", MeasuredValueSequence=millimetres("284")),
    ]
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID = "1.2.3"
    report.Modality, report.PatientID, report.PatientName = "SR", patient, "Zaphod^Beeblebrox"
    report.Laterality, report.ContentDate, report.ValueType = eye, "20210312", "CONTAINER"
    report.ContentSequence = [observer, language, findings]
    if laterality is not None:
        side = item("CODE", "Laterality", ConceptCodeSequence=[code(laterality)])
        report.ContentSequence.append(side)
    path.parent.mkdir(parents=True, exist_ok=True)
    report.save_as(path, enforce_file_format=True)


def test_words_codes_and_numbers_are_the_report_and_no_observer_is(tmp_path):
    write_report(tmp_path / "deep" / "1.dcm")
    write_report(tmp_path / "2", eye="", laterality="Left eye", words="No fluid.")
    write_dicom(tmp_path / "scan.dcm", dicom(bscans(), PatientID="7001"))
    (tmp_path / "notes.txt").write_text("7001")
    table, files = read_structured_reports(tmp_path, COLUMNS, "text")
    assert [path.name for path in files] == ["2", "1.dcm"]
    assert table.cells == {
        "MRN": ["7001", "7001"],
        "Side": ["OS", "OD"],
        "Visit": ["2021-03-12", "2021-03-12"],
        "text": [
            "No fluid. Stage: intermediate AMD. Central thickness: 284 um. Laterality: Left eye.",
            "Drusen in the fovea. Stage: intermediate AMD. Central thickness: 284 um.",
        ],
    }


def test_reports_lie_among_the_scans(tmp_path):
    scans = tmp_path / "scans"
    for number, eye in enumerate("RLRLRL"):
        image = dicom(bscans(top=250 - number), PatientID=f"700{number}", ImageLaterality=eye,
                      AcquisitionDateTime="20210312101112")  # fmt: skip
        write_dicom(scans / f"scan{number}.dcm", image)
        report = scans / f"report{number}.dcm"
        write_report(report, patient=f"700{number}", eye=eye, words=f"Drusen, {number}")
    write_report(scans / "lone.dcm", patient="8000")
    run(tmp_path, scans)
    rows = read_csv(tmp_path / "out" / "pairs.csv")
    text = "Drusen, {}. Stage: intermediate AMD. Central thickness: 284 um."
    assert [row[:3] for row in rows] == [
        [f"../scans/scan{k}.dcm#1", text.format(k), f"700{k}"] for k in range(6)
    ]
    unmatched = read_csv(tmp_path / "out" / "unmatched.csv")
    assert unmatched == [[str(scans / "lone.dcm"), "report without a scan"]]


def test_a_folder_without_any_is_an_error(tmp_path):
    write_dicom(tmp_path / "scan.dcm", dicom(bscans()))
    with pytest.raises(InputError, match="no DICOM structured report"):
        read_structured_reports(tmp_path, COLUMNS, "text")
