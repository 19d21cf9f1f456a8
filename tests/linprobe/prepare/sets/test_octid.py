"""OCTID: classes by folder or by name, no patients."""

from __future__ import annotations

from collections import Counter

import pytest

from linprobe.prepare.octid import SPEC
from linprobe.prepare.splits import divide
from retfiner.common.errors import InputError
from tests.helpers.downloads import write_image, write_octid
from tests.linprobe.prepare.sets.common import CENTRAL, by_name, shows, told

list_bscans = SPEC.list_bscans


def test_five_classes_without_patients(tmp_path):
    listing = list_bscans(write_octid(tmp_path), CENTRAL)
    found = by_name(listing)
    labels = Counter(bscan.label for bscan in found.values())
    assert labels == dict.fromkeys(("AMD", "CSR", "DR", "MH", "NORMAL"), 3)
    assert {bscan.patient for bscan in found.values()} == {None}
    assert found["AMRD2"].label == "AMD"
    assert shows(found["AMRD2"], 12, tolerance=12)
    assert told(listing, "published: AMD 55, CSR 102, DR 107, MH 102, NORMAL 206")


def test_the_split_by_image_is_said(tmp_path):
    division = divide(list_bscans(write_octid(tmp_path), CENTRAL).bscans, SPEC.split, 0)
    assert "image" in division.rule
    assert any("Patients are not known" in note for note in division.notes)


def test_images_in_one_folder_are_told_by_their_names(tmp_path):
    for k, stem in enumerate(("NORMAL1", "AMRD (2)", "CSR3", "DR10", "MH-4")):
        write_image(tmp_path / "all" / f"{stem}.jpeg", k)
    labels = {bscan.source: bscan.label for bscan in list_bscans(tmp_path, CENTRAL).bscans}
    assert labels == {
        "all/NORMAL1.jpeg": "NORMAL",
        "all/AMRD (2).jpeg": "AMD",
        "all/CSR3.jpeg": "CSR",
        "all/DR10.jpeg": "DR",
        "all/MH-4.jpeg": "MH",
    }


def test_the_folder_wins_over_a_contradicting_name(tmp_path):
    write_octid(tmp_path)
    write_image(tmp_path / "Macular-Hole-Retinal-OCT-images" / "CSR77.jpeg", 3)
    listing = list_bscans(tmp_path, CENTRAL)
    assert by_name(listing)["CSR77"].label == "MH"


def test_the_same_name_twice_gets_a_number(tmp_path):
    write_octid(tmp_path)
    write_image(tmp_path / "Macular-Hole-Retinal-OCT-images" / "more" / "mh1.jpeg", 3)
    names = set(by_name(list_bscans(tmp_path, CENTRAL)))
    assert {"MH1", "mh1_2"} <= names


def test_a_missing_class_and_foreign_images(tmp_path):
    write_octid(tmp_path)
    for k in range(5):
        write_image(tmp_path / "other" / f"cat{k}.jpeg", k)
    with pytest.raises(InputError, match="5 of 20 images belong to no class"):
        list_bscans(tmp_path, CENTRAL)
    for path in (tmp_path / "Diabetic-Retinopathy-Retinal-OCT-Images").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="Nothing of DR"):
        list_bscans(tmp_path, CENTRAL)
