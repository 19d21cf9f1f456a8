"""NEHUT2D: two kinds of label, ids that restart, and patients who are the same."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from linprobe.prepare.nehut2d import SPEC
from linprobe.prepare.spec import Options
from retfiner.common.errors import InputError
from tests.helpers.downloads import write_image, write_nehut
from tests.linprobe.prepare.sets.common import CENTRAL, by_name, patients_by_label, shows, told

list_bscans = SPEC.list_bscans

TABLE = "data_information.csv"
TOP = "NEH_UT_2021RetinalOCTDataset"


def test_the_bscans_own_label_and_the_patients_diagnosis(tmp_path):
    write_nehut(tmp_path)
    own = list_bscans(tmp_path, CENTRAL)
    assert Counter(b.label for b in own.bscans) == {"NORMAL": 8, "DRUSEN": 2, "CNV": 2}
    assert told(own, "2 B-scans labelled NORMAL are of patients with the diagnosis CNV")
    assert told(own, "2 B-scans labelled NORMAL are of patients with the diagnosis DRUSEN")
    theirs = list_bscans(tmp_path, Options(label="patient"))
    assert Counter(b.label for b in theirs.bscans) == {"NORMAL": 4, "DRUSEN": 4, "CNV": 4}
    found = by_name(own)
    assert shows(found["CNV_2_001_cnv"], 221)
    assert shows(found["CNV_1_OD_001_cnv"], 211, tolerance=12)
    assert told(own, "patients", "NORMAL 2", "published: NORMAL 120, DRUSEN 160, CNV 161")


def test_ids_restart_in_each_class(tmp_path):
    listing = list_bscans(write_nehut(tmp_path), Options(label="patient"))
    assert patients_by_label(listing) == {
        label: {f"{label}-1", f"{label}-2"} for label in ("NORMAL", "DRUSEN", "CNV")
    }


@pytest.mark.parametrize(
    "written",
    [
        r"CNV\2\001_cnv.tif",
        r"NEH_UT_2021RetinalOCTDataset\CNV\2\001_cnv.tif",
        "/NEH_UT_2021RetinalOCTDataset/CNV/2/001_cnv.tif",
        "./CNV/2/001_CNV.tif",
        "cnv/2/001_cnv.TIF",
    ],
)
def test_paths_as_the_table_may_write_them(tmp_path, written):
    row = (2, "CNV", "OD", 1, "CNV", written)
    write_nehut(tmp_path, {"CNV/2/001_cnv.tif": row})
    assert len(list_bscans(tmp_path, CENTRAL).bscans) == 12


def test_case_mismatches_between_table_and_disk(tmp_path):
    row = (2, "NORMAL", "OD", 1, "NOrmal", "NORMAL/2/001_NOrmal.tif")
    write_nehut(tmp_path, {"NORMAL/2/001_normal.tif": row})
    place = tmp_path / TOP / "DRUSEN" / "2"
    (place / "001_drusen.tif").rename(place / "001_DRusen.tif")
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 12
    assert {b.label for b in listing.bscans} == {"NORMAL", "DRUSEN", "CNV"}


def test_a_row_twice_is_taken_once(tmp_path):
    write_nehut(tmp_path)
    with (tmp_path / TABLE).open("a") as stream:
        stream.write("2,CNV,OD,1,CNV,CNV\\2\\001_cnv.tif\n")
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 12
    assert told(listing, "1 rows", "second time")


def test_rows_that_contradict_each_other_are_left_out_or_an_error(tmp_path):
    write_nehut(tmp_path)
    with (tmp_path / TABLE).open("a") as stream:
        stream.write("2,CNV,OD,1,Normal,CNV/2/001_cnv.tif\n")
    with pytest.raises(InputError, match="1 of 12 images have two rows"):
        list_bscans(tmp_path, CENTRAL)
    more = [f"1,CNV,OS,{k},CNV,CNV/1/OS/{k:03d}_cnv.tif\n" for k in range(20)]
    for k in range(20):
        write_image(tmp_path / TOP / f"CNV/1/OS/{k:03d}_cnv.tif", 500 + k)
    with (tmp_path / TABLE).open("a") as stream:
        stream.writelines(more)
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 31
    assert told(listing, "1 of 32 images have two rows", "CNV/2/001_cnv.tif")


def test_patients_with_identical_bscans_are_merged_across_ids_and_classes(tmp_path):
    write_nehut(tmp_path)
    top = tmp_path / TOP
    shutil.copy(top / "NORMAL/2/000_normal.tif", top / "DRUSEN/2/000_normal.tif")
    shutil.copy(top / "DRUSEN/1/OD/001_drusen.jpg", top / "CNV/1/OD/001_cnv.jpg")
    shutil.copy(top / "DRUSEN/2/001_drusen.tif", top / "CNV/2/001_cnv.tif")
    listing = list_bscans(tmp_path, Options(label="patient"))
    patient = {name: bscan.patient for name, bscan in by_name(listing).items()}
    chain = {patient[name] for name in patient if name.split("_")[1] == "2"}
    assert chain == {"NORMAL-2"}
    assert patient["DRUSEN_1_OD_000_normal"] == patient["CNV_1_OD_000_normal"]
    assert len(set(patient.values())) == 3
    assert told(listing, "link 5 patients", "merged to 2")


def test_files_of_equal_size_that_differ_in_one_byte_are_not_the_same(tmp_path):
    write_nehut(tmp_path)
    top = tmp_path / TOP
    content = (top / "NORMAL/2/000_normal.tif").read_bytes()
    (top / "DRUSEN/2/000_normal.tif").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not told(list_bscans(tmp_path, CENTRAL), "byte-identical")


def test_identical_bscans_of_one_patient_merge_nobody(tmp_path):
    write_nehut(tmp_path)
    top = tmp_path / TOP
    shutil.copy(top / "CNV/2/000_normal.tif", top / "CNV/2/001_cnv.tif")
    assert not told(list_bscans(tmp_path, CENTRAL), "byte-identical")


def test_a_folder_with_two_ids_is_one_patient(tmp_path):
    row = (77, "CNV", "OD", 1, "CNV", "CNV/2/001_cnv.tif")
    listing = list_bscans(write_nehut(tmp_path, {"CNV/2/001_cnv.tif": row}), CENTRAL)
    found = by_name(listing)
    assert found["CNV_2_001_cnv"].patient == found["CNV_2_000_normal"].patient
    assert told(listing, "1 folders", "CNV/2")


def test_a_table_in_another_encoding(tmp_path):
    write_nehut(tmp_path)
    text = (tmp_path / TABLE).read_text()
    (tmp_path / TABLE).write_text(text, encoding="utf-16")
    assert len(list_bscans(tmp_path, CENTRAL).bscans) == 12
    (tmp_path / TABLE).write_bytes(text.replace("OD", "Ö").encode("latin-1"))
    with pytest.raises(InputError, match=r"data_information\.csv cannot be read"):
        list_bscans(tmp_path, CENTRAL)


def test_the_header_must_be_as_published(tmp_path):
    write_nehut(tmp_path)
    text = (tmp_path / TABLE).read_text()
    (tmp_path / TABLE).write_text(text.replace("Patient ID", "Patient"))
    with pytest.raises(InputError, match="it lacks Patient ID"):
        list_bscans(tmp_path, CENTRAL)


def test_missing_parts(tmp_path):
    write_nehut(tmp_path / "a")
    (tmp_path / "a" / TABLE).unlink()
    with pytest.raises(InputError, match=r"no data_information\.csv"):
        list_bscans(tmp_path / "a", CENTRAL)
    write_nehut(tmp_path / "b")
    (tmp_path / "b" / TOP / "CNV" / "2" / "001_cnv.tif").unlink()
    with pytest.raises(InputError, match="1 of 12 rows"):
        list_bscans(tmp_path / "b", CENTRAL)
    shutil.rmtree(tmp_path / "b" / TOP / "CNV")
    with pytest.raises(InputError, match="Nothing of CNV"):
        list_bscans(tmp_path / "b", CENTRAL)
    bad = (2, "CNV", "OD", 1, "fluid", "CNV/2/001_cnv.tif")
    write_nehut(tmp_path / "c", {"CNV/2/001_cnv.tif": bad})
    with pytest.raises(InputError, match="'fluid'"):
        list_bscans(tmp_path / "c", CENTRAL)
