"""Noor Eye Hospital: three layouts, the order of numbers, cases and visits."""

from __future__ import annotations

import pytest
from PIL import Image

from linprobe.prepare.noor import SPEC, case_of
from linprobe.prepare.spec import Options
from retfiner.common.errors import InputError
from tests.helpers.downloads import SIZE, pattern, write_image, write_noor_volume
from tests.linprobe.prepare.sets.common import ALL, CENTRAL, by_name, patients_by_label, shows, told

list_bscans = SPEC.list_bscans


def write_parts(folder):
    """Cases named like their class, in several folders of a class, with visits."""
    write_noor_volume(folder / "AMD Part1/AMD (1).E2E/visit1", 100, 19)
    write_noor_volume(folder / "AMD Part1/AMD (1).E2E/visit2", 200, 12)
    write_noor_volume(folder / "AMD Part2/AMD (30).E2E/visit1", 300, 25)
    write_noor_volume(folder / "DME/DME (1)", 400, 11, "Image ({}).tiff")
    write_noor_volume(folder / "NORMAL/NORMAL (1)", 500, 10, "Image {}.png")
    return folder


def test_the_central_bscan_by_number_of_each_visit(tmp_path):
    listing = list_bscans(write_parts(tmp_path), CENTRAL)
    found = by_name(listing)
    # Of n B-scans numbered from 1, index n // 2 has the number n // 2 + 1.
    expected = {
        "AMD_1_visit1": 110,
        "AMD_1_visit2": 207,
        "AMD_30_visit1": 313,
        "DME_1": 406,
        "NORMAL_1": 506,
    }
    assert set(found) == set(expected)
    assert all(shows(found[name], number) for name, number in expected.items())
    assert found["DME_1"].source == "DME/DME (1)/Image (6).tiff"
    assert patients_by_label(listing) == {
        "AMD": {"AMD_1", "AMD_30"},
        "DME": {"DME_1"},
        "NORMAL": {"NORMAL_1"},
    }
    assert told(listing, "cases", "AMD 2", "published: AMD 48, DME 50, NORMAL 50")


@pytest.mark.parametrize(
    ("names", "size"),
    [
        (["SLO.TIFF"], (20, 20)),
        (["Image 0.TIFF"], (20, 20)),
        (["photo 1.png", "photo 2.png"], (20, 20)),
        (["fundus_1.png", "OD IR.png"], SIZE),
    ],
)
def test_fundus_images_among_the_bscans_are_left_out_and_counted(tmp_path, names, size):
    plain = list_bscans(write_parts(tmp_path), CENTRAL)
    place = tmp_path / "DME/DME (1)"
    for name in names:
        Image.fromarray(pattern(0, size)).save(place / name)
    listing = list_bscans(tmp_path, CENTRAL)
    assert [b.source for b in listing.bscans] == [b.source for b in plain.bscans]
    assert told(listing, f"{len(names)} images that are no B-scans", "fundus")
    first = by_name(list_bscans(tmp_path, Options(bscan=0)))["DME_1"]
    assert first.source == "DME/DME (1)/Image (1).tiff"


def test_bscans_of_several_sizes_are_all_kept(tmp_path):
    write_parts(tmp_path)
    for k in (2, 3, 4, 5):
        Image.fromarray(pattern(k, (20, 20))).save(tmp_path / f"DME/DME (1)/Image ({k}).tiff")
    listing = list_bscans(tmp_path, ALL)
    assert len(listing.bscans) == 19 + 12 + 25 + 11 + 10
    assert not told(listing, "no B-scans")


def test_all_bscans_are_in_the_order_of_their_numbers(tmp_path):
    found = list_bscans(write_parts(tmp_path), ALL).bscans
    assert len(found) == 19 + 12 + 25 + 11 + 10
    first = [bscan for bscan in found if bscan.name.startswith("AMD_1_visit1")]
    assert all(shows(bscan, 101 + k) for k, bscan in enumerate(first))


@pytest.mark.parametrize(
    ("place", "label", "name"),
    [
        ("AMD Part1/AMD (1).E2E/2016", "AMD", "AMD_1"),
        ("AMD/AMD (12)", "AMD", "AMD_12"),
        ("Data/DME/17", "DME", "17"),
        ("download/Data/normal/case_b/visit", "NORMAL", "case_b"),
        ("AMD (1).E2E/visit", "AMD", "AMD_1"),
        ("NORMAL/Normal (3)", "NORMAL", "Normal_3"),
        ("amd_part_2/9", "AMD", "9"),
    ],
)
def test_class_and_case_at_any_depth(place, label, name):
    assert case_of(place.split("/")) == (label, name)


@pytest.mark.parametrize("place", ["", "images/1", "AMDextra/1", "AMD"])
def test_folders_that_tell_no_case(place):
    assert case_of(place.split("/")) is None


def test_case_folders_with_bare_numbers_are_apart_by_class(tmp_path):
    for c, label in enumerate(("AMD", "DME", "NORMAL")):
        write_noor_volume(tmp_path / "Data" / label / "1", 100 * c, 3)
    assert patients_by_label(list_bscans(tmp_path, CENTRAL)) == {
        "AMD": {"AMD_1"},
        "DME": {"DME_1"},
        "NORMAL": {"NORMAL_1"},
    }


def test_a_class_missing_an_index_too_large_and_strange_images(tmp_path):
    write_parts(tmp_path)
    with pytest.raises(InputError, match="no B-scan 15"):
        list_bscans(tmp_path, Options(bscan=15))
    for k in range(3):
        write_image(tmp_path / "figures" / f"{k}.png", k)
    assert told(list_bscans(tmp_path, CENTRAL), "3 of 80 images lie in no folder of a case")
    for path in (tmp_path / "DME" / "DME (1)").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="Nothing of DME"):
        list_bscans(tmp_path, CENTRAL)


def test_a_damaged_image_is_named(tmp_path):
    write_parts(tmp_path)
    path = tmp_path / "DME/DME (1)/Image (6).tiff"
    path.write_bytes(b"no image at all")
    bscan = by_name(list_bscans(tmp_path, CENTRAL))["DME_1"]
    with pytest.raises(InputError, match=r"Image \(6\)\.tiff"):
        bscan.read()
