"""Kermany: the own split, with each patient in one part of it."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from linprobe.prepare.kermany import SPEC
from linprobe.prepare.splits import divide
from retfiner.common.errors import InputError
from tests.helpers.downloads import KERMANY_CLASSES, write_image, write_kermany
from tests.linprobe.prepare.sets.common import CENTRAL, by_name, shows, told

list_bscans = SPEC.list_bscans


def splits_of_patients(listing):
    found = defaultdict(set)
    for bscan in listing.bscans:
        found[bscan.patient].add(bscan.split)
    return found


@pytest.mark.parametrize("top", ["CellData/OCT", "OCT2017 ", "."])
def test_the_own_split_is_kept(tmp_path, top):
    listing = list_bscans(write_kermany(tmp_path, top=top), CENTRAL)
    found = by_name(listing)
    assert Counter(b.split for b in found.values()) == {"train": 24, "test": 8}
    assert Counter(b.label for b in found.values()) == dict.fromkeys(KERMANY_CLASSES, 8)
    bscan = found["DME-1002-1"]
    assert (bscan.label, bscan.patient, bscan.split) == ("DME", "1002", "train")
    assert shows(bscan, 13, tolerance=12)
    assert told(listing, "own split is kept")


def test_val_is_carved_by_patient_where_there_is_none(tmp_path):
    write_kermany(tmp_path, {"train": range(1, 41), "test": range(50, 55)})
    listing = list_bscans(tmp_path, CENTRAL)
    division = divide(listing.bscans, SPEC.split, 0)
    counts = Counter(division.splits)
    assert counts["test"] == 40
    assert counts["val"] == pytest.approx(320 / 9, abs=8)
    where = defaultdict(set)
    for bscan, split in zip(listing.bscans, division.splits, strict=True):
        where[bscan.patient].add(split)
    assert all(len(splits) == 1 for splits in where.values())


def test_patients_in_several_parts_stay_in_the_strictest(tmp_path):
    write_kermany(tmp_path, {"train": (1, 2, 3, 4), "val": (3, 4, 5), "test": (4, 6)})
    listing = list_bscans(tmp_path, CENTRAL)
    where = splits_of_patients(listing)
    assert all(len(splits) == 1 for splits in where.values())
    assert where["1"] == where["2"] == {"train"}
    assert where["3"] == where["5"] == {"val"}
    assert where["4"] == where["6"] == {"test"}
    assert told(listing, "4 patients", "train as well as in test", "8 of 32 images in train")
    assert told(listing, "4 patients", "train as well as in val", "8 of 32 images in train")
    assert told(listing, "4 patients", "val as well as in test", "8 of 24 images in val")
    divide(listing.bscans, SPEC.split, 0)


def test_a_number_in_several_classes_is_one_patient(tmp_path):
    write_kermany(tmp_path)
    write_image(tmp_path / "CellData/OCT/test/NORMAL/NORMAL-1-9.jpeg", 5)
    listing = list_bscans(tmp_path, CENTRAL)
    assert splits_of_patients(listing)["1"] == {"test"}
    assert not any(b.name.startswith("CNV-1-") for b in listing.bscans)
    assert told(listing, "1 patients", "train as well as in test", "2 of 24 images")
    assert told(listing, "1 of 16 patient numbers recur in several classes")


def test_the_flat_layout_has_no_split(tmp_path):
    write_kermany(tmp_path, {"": (1, 2, 3)}, top="oct_subset")
    write_image(tmp_path / "oct_subset/CNV/CNV-1-1_dup84fb.jpeg", 2)
    listing = list_bscans(tmp_path, CENTRAL)
    assert {bscan.split for bscan in listing.bscans} == {None}
    assert by_name(listing)["CNV-1-1_dup84fb"].patient == "1"
    assert not told(listing, "own split")


def test_chest_xrays_are_not_taken_for_bscans(tmp_path):
    write_kermany(tmp_path)
    for k in range(4):
        write_image(tmp_path / f"CellData/chest_xray/train/NORMAL/NORMAL-{k}-0001.jpeg", k)
        write_image(tmp_path / f"xrays/train/NORMAL/NORMAL-{k}-0001.jpeg", k)
        write_image(tmp_path / f"xrays/train/PNEUMONIA/BACTERIA-{k}-0001.jpeg", k)
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 32
    assert told(listing, "8 chest X-rays left out")


def test_everything_twice_is_taken_once(tmp_path):
    write_kermany(tmp_path, top="OCT2017")
    write_kermany(tmp_path, top="oct2017/OCT2017 ")
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 32
    assert told(listing, "32 images lay there twice")
    path = tmp_path / "OCT2017/train/CNV/CNV-1-1.jpeg"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"Two different images are named CNV-1-1\.jpeg"):
        list_bscans(tmp_path, CENTRAL)


def test_names_without_a_patient_and_a_missing_class(tmp_path):
    write_kermany(tmp_path)
    write_image(tmp_path / "CellData/OCT/train/CNV/scan.jpeg", 1)
    assert told(list_bscans(tmp_path, CENTRAL), "1 of 33 images are not named")
    for k in range(3):
        write_image(tmp_path / f"CellData/OCT/train/CNV/scan{k}.jpeg", 1)
    with pytest.raises(InputError, match="4 of 36 images are not named"):
        list_bscans(tmp_path, CENTRAL)
    write_image(tmp_path / "b/train/CNV/CNV-1-1.jpeg", 1)
    with pytest.raises(InputError, match="Nothing of DME and DRUSEN and NORMAL"):
        list_bscans(tmp_path / "b", CENTRAL)


def test_white_borders_are_zeroed_by_default():
    assert SPEC.zero_borders
