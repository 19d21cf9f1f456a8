"""Srinivasan: all B-scans of 45 volumes."""

from __future__ import annotations

import pytest

from linprobe.prepare.srinivasan import SPEC
from retfiner.common.errors import InputError
from tests.helpers.downloads import write_image, write_srinivasan
from tests.linprobe.prepare.sets.common import CENTRAL, by_name, patients_by_label, shows, told

list_bscans = SPEC.list_bscans


def test_all_bscans_with_their_volume_as_patient(tmp_path):
    listing = list_bscans(write_srinivasan(tmp_path), CENTRAL)
    found = by_name(listing)
    assert len(found) == 3 * 2 * 11
    assert patients_by_label(listing) == {
        label: {f"{label}1", f"{label}2"} for label in ("AMD", "DME", "NORMAL")
    }
    assert shows(found["DME2_010"], 1210)
    assert found["DME2_010"].source == "Publication_Dataset/DME2/TIFFs/8bitTIFFs/010.tif"
    names = [name for name in found if name.startswith("AMD1_")]
    assert names == [f"AMD1_{k:03d}" for k in range(1, 12)]
    assert told(listing, "volumes", "published: AMD 15, DME 15, NORMAL 15")


def test_only_the_8_bit_copies_are_taken(tmp_path):
    write_srinivasan(tmp_path)
    for k in range(1, 12):
        write_image(tmp_path / f"Publication_Dataset/AMD1/TIFFs/{k:03d}.tif", 5)
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 66
    assert all("8bitTIFFs" in bscan.source for bscan in listing.bscans)
    assert told(listing, "11 images outside of 8bitTIFFs")


def test_volumes_unpacked_without_the_folders_between(tmp_path):
    for c, label in enumerate(("amd", "DME", "Normal")):
        for k in range(3):
            write_image(tmp_path / f"{label}12" / f"{k}.tif", 10 * c + k)
    listing = list_bscans(tmp_path, CENTRAL)
    assert patients_by_label(listing) == {
        "AMD": {"AMD12"},
        "DME": {"DME12"},
        "NORMAL": {"NORMAL12"},
    }


def test_a_missing_class_and_foreign_images(tmp_path):
    write_srinivasan(tmp_path / "a")
    for k in range(9):
        write_image(tmp_path / "a" / "cats" / f"{k}.tif", k)
    with pytest.raises(InputError, match="9 of 75 images are of no volume"):
        list_bscans(tmp_path / "a", CENTRAL)
    write_image(tmp_path / "b" / "AMD1" / "1.tif", 1)
    with pytest.raises(InputError, match="Nothing of DME and NORMAL"):
        list_bscans(tmp_path / "b", CENTRAL)


def test_white_borders_are_zeroed_and_bscan_does_not_apply():
    assert SPEC.zero_borders and not SPEC.volumes
