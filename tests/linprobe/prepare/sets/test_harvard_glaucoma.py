"""Harvard-GDP: volumes and thickness maps of the same names, and the axis of B-scans."""

from __future__ import annotations

import numpy as np
import pytest

from linprobe.prepare.harvard_glaucoma import SPEC
from linprobe.prepare.spec import Options
from retfiner.common.errors import InputError
from tests.helpers.downloads import pattern, write_csv, write_harvard
from tests.linprobe.prepare.sets.common import CENTRAL, by_name, shows, told

list_bscans = SPEC.list_bscans


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("suffix", ["", ".npz"])
@pytest.mark.parametrize("words", [("yes", "no"), (1, 0), ("Yes", "NO"), ("1.0", "0.0")])
def test_labels_and_the_central_bscan_whatever_the_axis(tmp_path, axis, suffix, words):
    yes, no = words
    write_harvard(tmp_path, (yes, no, no, yes), axis=axis, suffix=suffix)
    listing = list_bscans(tmp_path, Options(slice_axis=("first", None, "last")[axis]))
    found = by_name(listing)
    assert [b.label for b in found.values()] == [
        "Glaucoma",
        "NonGlaucoma",
        "NonGlaucoma",
        "Glaucoma",
    ]
    for v, (name, bscan) in enumerate(found.items()):
        assert name == bscan.patient == f"data_{v + 1:04d}"
        assert bscan.source == f"Bscan/{name}.npz#2"
        assert bscan.split is None
        assert shows(bscan, 100 * v + 2, (12, 12))
    assert told(listing, "patients: 4; published: 1000")


def test_age_sex_race_and_ethnicity_as_published(tmp_path):
    listing = list_bscans(write_harvard(tmp_path), CENTRAL)
    assert [dict(bscan.about) for bscan in listing.bscans] == [
        {"sex": "female", "race": "Asian", "age": "60.5", "target_age": "60.5"},
        {"sex": "male", "race": "Black", "ethnicity": "non-Hispanic", "age": "61.5",
         "target_age": "61.5"},
        {"sex": "female", "race": "White", "ethnicity": "Hispanic", "age": "62.5",
         "target_age": "62.5"},
        {"sex": "male", "race": "Asian", "age": "63.5", "target_age": "63.5"},
    ]  # fmt: skip
    assert told(listing, "Known of 4 patients: age of 4, sex of 4, race of 4, ethnicity of 2.")


def test_words_that_nobody_published_are_not_known(tmp_path):
    header = ("filename", "glaucoma", "age", "gender", "race", "ethnicity")
    rows = [
        ("data_0001.npz", "yes", "-1", "Female", "Black", "Non-Hispanic"),  # as of FairVision
        ("data_0002.npz", "no", "71", "unknown", "7", "unknown"),
        ("data_0003.npz", "no", "", "", "", "-1"),
        ("data_0004.npz", "yes", "nan", "male", "White or Caucasian", "Hispanic"),
    ]
    write_csv(write_harvard(tmp_path) / "ReadMe" / "data_summary.csv", header, rows)
    assert [dict(bscan.about) for bscan in list_bscans(tmp_path, CENTRAL).bscans] == [
        {"sex": "female", "race": "Black", "ethnicity": "non-Hispanic"},
        {"age": "71", "target_age": "71"},
        {},
        {"sex": "male", "race": "White", "ethnicity": "Hispanic"},
    ]


def test_a_picture_shows_a_slice_along_either_axis(tmp_path):
    write_harvard(tmp_path, size=(12, 16), axis=0)
    listing = list_bscans(tmp_path, Options(slice_axis="last"))
    [(name, draw)] = listing.pictures.items()
    picture, taken = draw(), listing.bscans[0].read()
    assert name == "slice_axis.jpg" and picture.dtype == np.uint8 and taken.shape == (5, 12)
    rows = np.flatnonzero((picture[:, :16] == pattern(2, (12, 16))[6]).all(1))
    assert rows.size, "the B-scan along the first axis is in it"
    assert any((picture[k : k + 5, :12] == taken).all() for k in range(len(picture) - 4))


def test_all_bscans_in_order(tmp_path):
    options = Options(bscan="all", slice_axis="last")
    found = list_bscans(write_harvard(tmp_path, axis=2), options).bscans
    assert len(found) == 20
    assert all(shows(b, 100 * (i // 5) + i % 5, (12, 12)) for i, b in enumerate(found))


@pytest.mark.parametrize(
    "size", [(5, 5), (12, 12), (12, 5), (5, 12), (12, 16)], ids=lambda size: f"5x{size}"
)
def test_the_first_axis_counts_by_convention_whatever_the_shape(tmp_path, size):
    """As in the public loaders: a cube and B-scans as wide as they are many tell nothing."""
    listing = list_bscans(write_harvard(tmp_path, size=size), CENTRAL)
    assert shows(listing.bscans[0], 2, size)
    assert listing.bscans[0].source.endswith("#2")
    assert told(listing, "first axis", f"(5, {size[0]}, {size[1]})", "--slice_axis last")
    assert told(listing, "the last is the one that differs") == (size == (5, 12))


def test_the_flag_decides(tmp_path):
    write_harvard(tmp_path, size=(12, 16), axis=0)
    listing = list_bscans(tmp_path, Options(slice_axis="last"))
    bscan = listing.bscans[0]
    assert bscan.read().shape == (5, 12)
    assert bscan.source.endswith("#8")
    assert not told(listing, "first axis")


def test_thickness_maps_alone_are_not_enough(tmp_path):
    write_harvard(tmp_path)
    for path in (tmp_path / "Bscan").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no OCT volumes"):
        list_bscans(tmp_path, CENTRAL)


def test_rows_without_a_volume(tmp_path):
    labels = ["yes", "no"] * 20
    write_harvard(tmp_path, labels)
    (tmp_path / "Bscan" / "data_0003.npz").unlink()
    listing = list_bscans(tmp_path, CENTRAL)
    assert len(listing.bscans) == 39
    assert told(listing, "1 of 40 rows", "data_0003")
    for number in (5, 7, 9):
        (tmp_path / "Bscan" / f"data_{number:04d}.npz").unlink()
    with pytest.raises(InputError, match="4 of 40 rows"):
        list_bscans(tmp_path, CENTRAL)


def test_a_table_that_makes_no_sense(tmp_path):
    write_harvard(tmp_path, ("yes", "no", "perhaps"))
    with pytest.raises(InputError, match=r"data_0003(.|\n)*'perhaps'"):
        list_bscans(tmp_path, CENTRAL)
    write_csv(tmp_path / "ReadMe" / "data_summary.csv", ("filename", "age"), [("data_0001", 50)])
    with pytest.raises(InputError, match=r"data_summary\.csv does not have the columns"):
        list_bscans(tmp_path, CENTRAL)


def test_a_damaged_volume_is_named_and_nothing_is_unpickled(tmp_path):
    write_harvard(tmp_path)
    path = tmp_path / "Bscan" / "data_0002.npz"
    np.savez(path, bscans=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="1 of 4 rows"):
        list_bscans(tmp_path, CENTRAL)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"data_0002\.npz"):
        list_bscans(tmp_path, CENTRAL)
