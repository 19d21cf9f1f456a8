"""GAMMA: a sheet of grades, and volumes in two layouts."""

from __future__ import annotations

import pytest
from openpyxl import Workbook, load_workbook

from linprobe.prepare.gamma import SPEC
from linprobe.prepare.spec import Options
from retfiner.common.errors import InputError
from tests.helpers.downloads import write_gamma, write_image, write_mhd
from tests.linprobe.prepare.sets.common import ALL, CENTRAL, by_name, shows, told

list_bscans = SPEC.list_bscans

TOP = "Glaucoma_grading/training"
SHEET = f"{TOP}/glaucoma_grading_training_GT.xlsx"


@pytest.mark.parametrize("raw", [False, True])
def test_grades_and_the_central_bscan_in_both_layouts(tmp_path, raw):
    listing = list_bscans(write_gamma(tmp_path, raw=raw), CENTRAL)
    found = by_name(listing)
    assert [(b.name, b.label, b.patient) for b in found.values()] == [
        ("0001", "non", "0001"),
        ("0002", "early", "0002"),
        ("0003", "mid_advanced", "0003"),
        ("0004", "non", "0004"),
    ]
    for v, bscan in enumerate(found.values()):
        assert shows(bscan, 100 * v + 6, tolerance=0 if raw else 12)
    assert told(listing, "samples: 4; published: 100")
    expected = (
        f"{TOP}/multi-modality_images/0002/0002_Sequence/0002_Sequence_OCT_Iowa.mhd#6"
        if raw
        else f"{TOP}/multi-modality_images/0002/0002/6_image.jpg"
    )
    assert found["0002"].source == expected


@pytest.mark.parametrize("raw", [False, True])
def test_all_bscans_in_the_order_of_their_numbers(tmp_path, raw):
    found = list_bscans(write_gamma(tmp_path, raw=raw), ALL).bscans
    assert len(found) == 48
    assert all(
        shows(bscan, 100 * (i // 12) + i % 12, tolerance=0 if raw else 12)
        for i, bscan in enumerate(found)
    )


def test_the_raw_volume_counts_where_both_layouts_are_there(tmp_path):
    write_gamma(tmp_path)
    place = tmp_path / TOP / "multi-modality_images/0001/0001_Sequence"
    write_mhd(place / "0001_Sequence_OCT_Iowa.mhd", 700)
    found = by_name(list_bscans(tmp_path, CENTRAL))
    assert shows(found["0001"], 706)
    assert shows(found["0002"], 106, tolerance=12)


def test_a_test_sample_of_the_same_number_is_not_taken(tmp_path):
    write_gamma(tmp_path)
    for k in range(3):
        write_image(
            tmp_path / f"Glaucoma_grading/testing/multi-modality_images/0001/0001/{k}_image.jpg", k
        )
    found = by_name(list_bscans(tmp_path, CENTRAL))
    assert "training" in found["0001"].source


def test_missing_volumes_and_values_are_errors(tmp_path):
    place = write_gamma(tmp_path, raw=True) / TOP / "multi-modality_images/0003/0003_Sequence"
    (place / "0003_Sequence_OCT_Iowa.raw").unlink()
    with pytest.raises(InputError, match=r"values of .*0003_Sequence_OCT_Iowa\.mhd are missing"):
        list_bscans(tmp_path, CENTRAL)
    (place / "0003_Sequence_OCT_Iowa.mhd").unlink()
    with pytest.raises(InputError, match=r"1 of 4 samples(.|\n)*0003"):
        list_bscans(tmp_path, CENTRAL)


def test_values_that_were_cut_are_an_error_when_read(tmp_path):
    write_gamma(tmp_path, raw=True)
    path = next(tmp_path.rglob("0003*.raw"))
    path.write_bytes(path.read_bytes()[:200])
    bscan = by_name(list_bscans(tmp_path, CENTRAL))["0003"]
    with pytest.raises(InputError, match=r"0003_Sequence_OCT_Iowa\.mhd"):
        bscan.read()


def test_an_index_beyond_the_volume_names_the_sample(tmp_path):
    write_gamma(tmp_path)
    with pytest.raises(InputError, match="sample 0001 has no B-scan 12"):
        list_bscans(tmp_path, Options(bscan=12))


@pytest.mark.parametrize(
    "cells", [(2, 1, 1, 0), (2, 0, 0, 0), (2, 2, 0, 0), ("x", 1, 0, 0), (1, 0, 1, 0)]
)
def test_samples_without_one_grade(tmp_path, cells):
    write_gamma(tmp_path)
    book = load_workbook(tmp_path / SHEET)
    book.active.append(list(cells))
    book.save(tmp_path / SHEET)
    with pytest.raises(InputError, match=r"training_GT\.xlsx.*grade"):
        list_bscans(tmp_path, CENTRAL)


def test_sheets_that_do_not_fit(tmp_path):
    write_gamma(tmp_path)
    book = Workbook()
    book.active.append(["data", "non"])
    book.save(tmp_path / SHEET)
    with pytest.raises(InputError, match="does not have the columns"):
        list_bscans(tmp_path, CENTRAL)
    (tmp_path / SHEET).write_bytes(b"no sheet at all")
    with pytest.raises(InputError, match="cannot be read as a table"):
        list_bscans(tmp_path, CENTRAL)
    (tmp_path / SHEET).unlink()
    with pytest.raises(InputError, match="no glaucoma_grading_training_GT"):
        list_bscans(tmp_path, CENTRAL)


def test_a_grade_nobody_has(tmp_path):
    write_gamma(tmp_path, ("non", "early"))
    with pytest.raises(InputError, match="Nothing of mid_advanced"):
        list_bscans(tmp_path, CENTRAL)
