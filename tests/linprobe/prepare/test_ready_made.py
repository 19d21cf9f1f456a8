"""Downloads in the probing layout: found, taken as they are, and told apart from others."""

from __future__ import annotations

import csv
import json

import pytest

from linprobe.datasets import read_data_set
from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.prepare import prepare
from linprobe.prepare.ready_made import find_ready_made
from linprobe.prepare.registry import find_spec
from retfiner.common.errors import InputError
from tests.helpers.downloads import write_image

CLASSES = ("DR", "DME")
OLIVES = find_spec("OLIVES")


def write_ready(folder, classes=CLASSES, name="P{}{}_OD_v1", splits=("train", "val", "test")):
    for order, split in enumerate(splits):
        for label in classes:
            for n in range(2):
                stem = label[-1] + name.format(order, n)
                write_image(folder / split / label / f"{stem}.png", 10 * order + n)
    return folder


def run(source, output, name="OLIVES", **changes):
    config = PrepareConfig(name=name, source=[source], output=output, num_workers=0, **changes)
    return prepare(config, find_spec(name))


@pytest.mark.parametrize("below", ["", "OLIVES", "release/v1/OLIVES"])
def test_it_is_found_at_the_top_and_below_folders(tmp_path, below):
    write_ready(tmp_path / "download" / below)
    prepared = run(tmp_path / "download", tmp_path / "data")
    assert len(prepared.rows) == 12
    assert read_data_set(prepared.folder).classes == ["DME", "DR"]


def test_the_table_and_the_description_say_what_was_kept(tmp_path):
    source = write_ready(tmp_path / "download")
    prepared = run(source, tmp_path / "data")
    with (prepared.folder / "split.csv").open(newline="") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    row = rows["val/DR/RP11_OD_v1.png"]
    assert (row["class"], row["patient"], row["split"]) == ("DR", "RP11", "val")
    assert row["source"] == "val/DR/RP11_OD_v1.png"
    about = json.loads((prepared.folder / "dataset.json").read_text())
    assert about["done"]["split"] == {"rule": "the download's own"}
    assert about["counts"]["val"]["DR"] == {"images": 2, "patients": 2}


def test_patients_that_a_kept_split_shares_are_counted(tmp_path):
    source = write_ready(tmp_path / "download")
    write_image(source / "test" / "DR" / "RP00_OS_v2.png", 77)
    assert "1 patients are in several splits (RP00)." in run(source, tmp_path / "data").notes


def test_identical_images_across_a_kept_split_are_counted(tmp_path):
    source = write_ready(tmp_path / "download")
    copy = (source / "train" / "DR" / "RP00_OD_v1.png").read_bytes()
    (source / "test" / "DR" / "RP99_OD_v1.png").write_bytes(copy)
    notes = " ".join(run(source, tmp_path / "data").notes)
    # Within a split the classes have the same pictures: those are not meant.
    assert "1 images are in several splits, byte for byte the same" in notes


def test_patients_that_no_name_tells_are_unknown_and_that_is_said(tmp_path):
    source = write_ready(tmp_path / "download", name="scan{}{}")
    prepared = run(source, tmp_path / "data")
    assert "The patient of 12 of 12 images is not known." in prepared.notes
    assert set(prepared.rows["patient"]) == {""}


def test_a_table_beside_the_splits_tells_the_patients(tmp_path):
    source = write_ready(tmp_path / "download", name="scan{}{}")
    lines = ["image,patient"] + [
        f"{path.relative_to(source).as_posix()},eye {path.stem}" for path in source.rglob("*.png")
    ]
    (source / "split.csv").write_text("\n".join(lines) + "\n")
    prepared = run(source, tmp_path / "data")
    assert "eye Rscan11" in set(prepared.rows["patient"])
    assert any("split.csv" in note for note in prepared.notes)


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path):
    source = write_ready(tmp_path / "download")
    (source / "train" / "DR" / "notes.txt").write_text("x")
    (source / "readme.txt").write_text("beside the splits: of no concern")
    prepared = run(source, tmp_path / "data")
    assert len(prepared.rows) == 12
    assert "Left out, as no images: 1 files." in prepared.notes


def test_other_classes_than_the_authors_are_said(tmp_path):
    source = write_ready(tmp_path / "download", classes=("a", "b", "c"))
    notes = " ".join(run(source, tmp_path / "data").notes)
    assert "Its classes are a, b, c;" in notes


def test_one_of_several_is_chosen_by_its_name(tmp_path):
    write_ready(tmp_path / "download" / "olives")
    write_ready(tmp_path / "download" / "OCTID", classes=("x", "y"))
    assert set(run(tmp_path / "download", tmp_path / "data").rows["class"]) == set(CLASSES)
    with pytest.raises(InputError, match=r"(?s)several data sets.*GAMMAv2"):
        run(tmp_path / "download", tmp_path / "data", name="GAMMA")


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val"), ("training", "val")])
def test_all_three_splits_are_needed(tmp_path, splits):
    assert find_ready_made(write_ready(tmp_path / "d", splits=splits), OLIVES) is None


def test_splits_without_classes_or_images_are_not_ready(tmp_path):
    for split in ("train", "val", "test"):
        write_image(tmp_path / "flat" / split / "1.png", 0)
        (tmp_path / "empty" / split / "DR").mkdir(parents=True)
    assert find_ready_made(tmp_path / "flat", OLIVES) is None
    assert find_ready_made(tmp_path / "empty", OLIVES) is None


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("seed", 0),
        ("split", [0.5, 0.25, 0.25]),
        ("bscan", "all"),
        ("zero_borders", False),
        ("split_file", "split.csv"),
    ],
)
def test_flags_that_would_change_it_are_refused(tmp_path, flag, value):
    source = write_ready(tmp_path / "download")
    with pytest.raises(InputError, match=f"--{flag} would have no effect"):
        run(source, tmp_path / "data", **{flag: value})
    assert not (tmp_path / "data").exists()


def test_kermanys_own_split_is_never_taken_for_a_ready_one(tmp_path):
    classes = ("CNV", "DME", "DRUSEN", "NORMAL")
    for order, split in enumerate(("train", "val", "test")):
        for k, label in enumerate(classes):
            for n in range(3):
                patient = 1000 + 100 * order + 10 * k + n
                path = tmp_path / "OCT2017" / split / label / f"{label}-{patient}-1.jpeg"
                write_image(path, patient)
    prepared = run(tmp_path / "OCT2017", tmp_path / "data", name="Kermany")
    assert prepared.rows["image"].str.endswith(".png").all(), "read and written anew"
