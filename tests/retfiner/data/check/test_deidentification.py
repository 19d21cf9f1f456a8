"""What may name a patient is found; eponyms, measures and findings are not taken for it."""

import pytest

from retfiner.data.check.deidentification import (
    KINDS,
    LISTED,
    UNJUDGED,
    identifiers_in_path,
    identifiers_in_patient,
    identifiers_in_report,
    read_identifier_list,
)
from retfiner.data.phantoms.cohort import make_cohort, stream
from retfiner.data.phantoms.reports import describe

FOUND = {
    "name": [
        "Seen by Dr. Smith today", "Dr Smith", "Mrs O'Neil", "Herr Gruber", "Herrn Gruber",
        "Frau Dr. Müller", "Univ. Prof. Dr. med. Weiss", "Ms. Lee", "Patient: John Smith",
        "Patient: Smith, J.", "Patientin: Huber", "Patient: Wagner, Anna", "Name: smith",
        "Patient's name is: Anna", "Nachname: Huber", "signed DR SMITH", "MR. JONES", "Dr. Éric",
    ],
    "date of birth": [
        "DOB 12/03/1945", "DOB: 1945-03-12", "D.O.B. 12.3.45", "born 1945", "Born on 3 March 1945",
        "geb. 12.03.1945", "geb. am 12.03.45", "date of birth: 1 Jan 1950", "Geburtsdatum 3.4.1960",
    ],
    "date": [
        "2021-03-12", "12.03.2021", "3/12/21", "12 March 2021", "March 12, 2021", "March 2021",
        "12. März 2021", "on 12 MAR", "May 3rd", "20210312", "12032021", "03/2021", "2021-03",
        "3. Okt. 2020", "Dec 24",
    ],
    "age over 89": [
        "92 year old woman", "95-year-old", "91yo", "93 y/o", "aged 101", "Age: 97",
        "95-jährige Patientin", "91F with AMD", "90 years of age", "Alter 94",
    ],
    "record number": [
        "MRN 12345", "MRN: A12345", "mrn12345", "ID: 4711", "Patient ID 1234", "Pat.-Nr. 98765",
        "Fallnummer 12345678", "see 12345678", "123-45-6789", "Accession #12345",
        "Hospital number: 77123", "SVNR 1234 010150",
    ],
    "phone number": [
        "Tel. 01 40400 1234", "phone: 555-1234", "+43 1 40400 7931", "(555) 123-4567",
        "555-123-4567", "0664/1234567",
    ],
    "e-mail address": ["write to a.b@c.org", "x_y@hospital.example"],
}  # fmt: skip

NOTHING = [
    "Bruch's membrane intact", "Henle fibre layer", "Drusen in the fovea.", "Stargardt disease",
    "Best disease", "Coats disease", "Snellen 20/200", "Elschnig pearls", "Müller cells",
    "Weiss ring", "Fuchs dystrophy", "Haidinger brushes", "Vogt-Koyanagi-Harada",
    "Irvine-Gass syndrome", "Schlemm's canal", "Leber optic neuropathy",
    "Patient: Stargardt disease", "Patient: Bruch's membrane intact", "Patient: No fluid",
    "Patient: OCT shows drusen", "The patient: no fluid", "Name: withheld", "File name: scan",
    "Signs of DR. Macula flat", "Severe DR Macular oedema", "MS. Optic nerve pale",
    "250 µm", "PED 95 µm high", "CST 1024", "20/200", "6/12", "VA 20/20 OD 20/25 OS",
    "VA 1.0/0.8", "OCT5000", "CIRRUS HD-OCT 5000", "1.5 x 2.0 mm", "512 x 496 x 1024",
    "-2.50 -1.25 x 180", "+12.50 -1.25 x 180", "volume 8.91 mm3", "0.123456", "97 % of scans",
    "signal 8/10", "IOP 12/14", "visual field 24-2", "field 10-2", "ETDRS 1.2.3", "Grade 1-2",
    "since 2019", "8 years old", "89 year old", "age 65", "age-related", "90 µm", "thickness 95",
    "born at 28 weeks", "newborn", "5 may be seen", "Drusen may be 5 in number", "in 3 months",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts]
)
def test_what_may_name_a_patient_is_found(kind, text):
    assert kind in identifiers_in_report(text)
    assert kind in identifiers_in_report(f"Macula flat. {text}. No fluid, 250 µm.")


@pytest.mark.parametrize("text", NOTHING)
def test_eponyms_measures_and_findings_are_not_flagged(text):
    assert identifiers_in_report(text) == []
    assert identifiers_in_report(f"Normal retina. {text}, no fluid in the left eye.") == []


def test_no_report_of_the_phantoms_is_flagged():
    reports = {describe(scan, stream(0, 99, i)) for i, scan in enumerate(make_cohort(200, seed=0))}
    assert len(reports) > 300
    assert [report for report in reports if identifiers_in_report(report)] == []


def test_only_kinds_come_back_never_the_words():
    found = identifiers_in_report("Dr. Quacksalber saw Zaphod, born 12.03.1945, MRN 4711, a@b.de")
    assert found == ["name", "date of birth", "date", "record number", "e-mail address"]
    assert set(found) <= set(KINDS)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Dr_Smith_OD.png", ["name"]),
        ("Mrs Jones/1.png", ["name"]),
        ("2021_03_05_a.png", ["date"]),
        ("x/2021/03/05/a.png", ["date"]),
        ("12.03.2021/a.png", ["date"]),
        ("20210305.png", ["date"]),
        ("DOB19450312.png", ["date of birth", "date"]),
        ("MRN12345.png", ["record number"]),
        ("scan_1047099_1.jpg", ["record number"]),
        (r"scans\1047099\1.jpg", ["record number"]),
        ("a@b.org/1.png", ["e-mail address"]),
    ],
)
def test_paths_that_may_name_a_patient(name, kinds):
    assert identifiers_in_path(name) == kinds


@pytest.mark.parametrize(
    "name",
    [
        "images/P0001_OD_v1.png", "scan.e2e#12", "frame_000123.png", "img_0000001.png",
        "3fa45678-90ab-4cde-8f01-234567890abc.png", "d41d8cd98f00b204e9800998ecf84270.png",
        "a/1/2/19.png", "250um.tif", "CIRRUS5000/1.png",
        "CNV/CNV-1047099-1.jpeg", "amd_1047099_1.jpg", "Stargardt/Best_1.png", "",
        "Spectralis/2022-03/IM01.dcm",
    ],
)  # fmt: skip
def test_counters_hashes_and_places_in_volumes_are_not_flagged(name):
    assert identifiers_in_path(name) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("患者张大明，黄斑水肿。", "name"),
        ("氏名：佐藤花子", "name"),
        ("Пациент: Петров Пётр, друзы", "name"),
        ("Όνομα: Νικολάου, drusen", "name"),
        ("환자: 홍길동", "name"),
        ("Nombre: Juana", "name"),
        ("２０２０年１月２日", "date"),
        ("二〇二〇年一月", "date"),
        ("平成30年", "date"),
        ("осмотр 12 января", "date"),
        ("le 14 juillet", "date"),
        ("the second of June", "date"),
        ("am zwölften Juni", "date"),
        ("ผู้ป่วยจุดรับภาพบวม", UNJUDGED),
    ],
)
def test_other_scripts_and_dates_in_words(text, kind):
    assert kind in identifiers_in_report(text)


def test_findings_in_other_scripts_name_nobody():
    for text in (
        "患者左眼黄斑水肿，厚度250微米。",
        "Отёк макулы, друзы.",
        "黄斑浮腫を認める。",
        "M. Stargardt",
    ):
        assert identifiers_in_report(text) == []


def test_a_list_of_words_is_looked_for_whatever_their_case_and_accents(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("# names\nÉric\nExample Hospital\n佐藤\n", encoding="utf-8")
    listed = read_identifier_list(path)
    assert identifiers_in_report("seen with ERIC", listed) == [LISTED]
    assert identifiers_in_report("at the example  hospital, no fluid", listed) == [LISTED]
    assert identifiers_in_report("佐藤は黄斑浮腫", listed) == [LISTED]
    assert identifiers_in_report("erica; hospital", listed) == []
    assert identifiers_in_path("scans/eric_1.png", listed) == [LISTED]


def test_a_column_of_patients_may_hold_their_names():
    assert identifiers_in_patient("Beispiel, Anna") == ["name"]
    assert identifiers_in_patient("P0001") == identifiers_in_patient("123456789") == []
