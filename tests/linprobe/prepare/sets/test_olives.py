"""OLIVES: two studies, eyes and visits, and who is one patient."""

from __future__ import annotations

import csv
import shutil

import pytest

from linprobe.prepare.olives import BIOMARKERS, PATH, SPEC, TABLE
from retfiner.common.errors import InputError
from tests.helpers.downloads import write_olives
from tests.linprobe.prepare.sets.common import ALL, CENTRAL, by_name, patients_by_label, shows, told

list_bscans = SPEC.list_bscans


def test_the_central_bscan_of_each_eye_and_visit(tmp_path):
    listing = list_bscans(write_olives(tmp_path), CENTRAL)
    found = by_name(listing)
    expected = {
        "PRIME_01-001_W0_OD": ("DR", 2, 0),
        "PRIME_01-001_W4_OD": ("DR", 102, 0),
        "PRIME_01-002_W0_OS": ("DR", 202, 0),
        "TREX_GILA_0201GOD_V1_OD": ("DME", 302, 0),
        "TREX_TREX_0201TOS_V1_OS": ("DME", 402, 12),
        "TREX_Monthly_0245MOD_V2_OD": ("DME", 502, 0),
    }
    assert set(found) == set(expected)
    for name, (label, number, tolerance) in expected.items():
        assert found[name].label == label
        assert shows(found[name], number, tolerance=tolerance)
    assert told(listing, "6 images that are no B-scans")
    assert told(listing, "eyes", "DR 2, DME 3", "published: DR 40, DME 56")


def test_two_eyes_in_two_arms_are_one_patient(tmp_path):
    assert patients_by_label(list_bscans(write_olives(tmp_path), CENTRAL)) == {
        "DR": {"PRIME_01-001", "PRIME_01-002"},
        "DME": {"TREX_0201", "TREX_0245"},
    }


def test_all_bscans_in_the_order_of_their_numbers(tmp_path):
    write_olives(tmp_path, n_bscans=12)
    found = list_bscans(tmp_path, ALL).bscans
    first = [bscan for bscan in found if bscan.name.startswith("PRIME_01-001_W0")]
    assert len(found) == 72
    assert all(shows(bscan, k) for k, bscan in enumerate(first))


def test_folders_as_the_archives_within_the_archive_leave_them(tmp_path):
    write_olives(tmp_path / "x")
    (tmp_path / "OLIVES").mkdir()
    shutil.move(tmp_path / "x" / "Prime_FULL", tmp_path / "OLIVES" / "Prime_FULL")
    (tmp_path / "OLIVES" / "TREX_DME").mkdir()
    shutil.move(tmp_path / "x" / "TREX DME", tmp_path / "OLIVES" / "TREX_DME" / "TREX DME")
    assert len(list_bscans(tmp_path / "OLIVES", CENTRAL).bscans) == 6


def test_one_study_alone_is_an_error(tmp_path):
    write_olives(tmp_path)
    shutil.rmtree(tmp_path / "Prime_FULL")
    with pytest.raises(InputError, match="Nothing of DR"):
        list_bscans(tmp_path, CENTRAL)


def test_biomarkers_acuity_and_thickness_of_the_table_go_along(tmp_path):
    write_olives(tmp_path, n_bscans=3)
    columns = [PATH, *BIOMARKERS, "BCVA", "CST", "Patient_ID"]
    places = {"/Prime_FULL/01-001/W0/OD/1.tif": "", "/TREX DME/GILA/0234GOD/V1/OD/9.png": "0",
              "/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000001.tif": "1.0"}  # fmt: skip
    with (tmp_path / TABLE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for place, vmt in places.items():
            cells = ["0" if name != "VMT" else vmt for name in BIOMARKERS]
            writer.writerow([place, *cells, "78", "254.5", "1"])
    listing = list_bscans(tmp_path, CENTRAL)
    found = by_name(listing)
    prime, trex = found["PRIME_01-001_W0_OD"].about, found["TREX_GILA_0201GOD_V1_OD"].about
    assert (prime["target_VMT"], prime["target_SHRM"], prime["target_CST"]) == ("", "0", "254.5")
    assert (trex["target_VMT"], trex["target_BCVA"]) == ("1.0", "78")
    assert len(trex) == 18 and not found["PRIME_01-001_W4_OD"].about
    assert told(listing, f"{TABLE} tells biomarkers of 2 of 6 B-scans")
