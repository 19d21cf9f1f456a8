"""OCTDL: the table decides, and must fit the images."""

from __future__ import annotations

import pytest

from linprobe.prepare.octdl import SPEC
from retfiner.common.errors import InputError
from tests.helpers.downloads import OCTDL_CLASSES, write_image, write_octdl
from tests.linprobe.prepare.sets.common import CENTRAL, by_name, patients_by_label, shows, told

list_bscans = SPEC.list_bscans

TABLE = "OCTDL_labels.csv"


def edit(folder, old, new):
    path = folder / TABLE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_labels_and_patients_of_the_table(tmp_path, suffix):
    listing = list_bscans(write_octdl(tmp_path, suffix), CENTRAL)
    found = by_name(listing)
    assert len(found) == 28
    assert {label: len(p) for label, p in patients_by_label(listing).items()} == dict.fromkeys(
        OCTDL_CLASSES, 2
    )
    bscan = found["dme_1132011_2"]
    assert (bscan.label, bscan.patient, bscan.split) == ("DME", "1132011", None)
    assert bscan.source == "OCTDL/DME/dme_1132011_2.jpg"
    assert shows(bscan, 13, tolerance=12)
    assert told(listing, "AMD 4", "published: AMD 1231")


def test_a_patient_whom_a_spreadsheet_wrote_in_two_ways_is_one(tmp_path):
    write_octdl(tmp_path)
    edit(tmp_path, "dme_1132011_2,DME,,,1132011", 'dme_1132011_2,DME,,,"1,132,011"')
    edit(tmp_path, "amd_1132000_2,AMD,,,1132000", "amd_1132000_2,AMD,,,1132000.0")
    listing = list_bscans(tmp_path, CENTRAL)
    assert all(len(p) == 2 for p in patients_by_label(listing).values())
    assert told(listing, "2 patients are written in several ways", "1132000, 1132011")


def test_the_table_may_lie_elsewhere_and_be_spelt_otherwise(tmp_path):
    write_octdl(tmp_path)
    other = tmp_path / "more" / "octdl_LABELS.csv"
    other.parent.mkdir()
    text = (tmp_path / TABLE).read_text().replace(",", ";")
    (tmp_path / TABLE).unlink()
    other.write_text("\ufeff" + text, encoding="utf-8")
    assert len(list_bscans(tmp_path, CENTRAL).bscans) == 28


def test_a_few_images_and_rows_without_counterpart_are_left_out(tmp_path):
    write_octdl(tmp_path)
    write_image(tmp_path / "OCTDL" / "AMD" / "amd_999_1.jpg", 1)
    (tmp_path / "OCTDL" / "NO" / "no_1132030_1.jpg").unlink()
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 27
    assert told(listing, "1 of 28 rows", "no_1132030_1")
    assert told(listing, "1 of 28 images", "amd_999_1")


def test_many_of_them_are_an_error(tmp_path):
    write_octdl(tmp_path)
    for k in range(1, 3):
        (tmp_path / "OCTDL" / "NO" / f"no_1132030_{k}.jpg").unlink()
    with pytest.raises(InputError, match=r"2 of 28 rows of OCTDL_labels\.csv have no image"):
        list_bscans(tmp_path, CENTRAL)


def test_a_missing_table_or_class(tmp_path):
    write_octdl(tmp_path)
    for path in (tmp_path / "OCTDL" / "RAO").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="Nothing of RAO"):
        list_bscans(tmp_path, CENTRAL)
    (tmp_path / TABLE).unlink()
    with pytest.raises(InputError, match=r"no OCTDL_labels\.csv"):
        list_bscans(tmp_path, CENTRAL)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dme_1132011_2,DME", "dme_1132011_2,ERM", "another class"),
        ("dme_1132011_2,DME", "dme_1132011_2,XYZ", "no class of this data set"),
        (",1132011,", ",,", "no class of this data set, or no patient"),
        ("file_name,disease", "name,disease", "does not have the columns"),
        ("dme_1132011_2,DME", "dme_1132011_1,DME,x", "cannot be read as a table"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path, old, new, words):
    write_octdl(tmp_path)
    edit(tmp_path, old, new)
    with pytest.raises(InputError, match=words):
        list_bscans(tmp_path, CENTRAL)


def test_two_images_of_one_name_are_an_error(tmp_path):
    write_octdl(tmp_path)
    write_image(tmp_path / "train" / "DME" / "dme_1132011_2.jpg", 1)
    with pytest.raises(InputError, match="Two images are named"):
        list_bscans(tmp_path, CENTRAL)
