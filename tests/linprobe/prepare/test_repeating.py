"""Somebody's split: repeated exactly, or refused in plain words; and a toy set from end to end."""

from __future__ import annotations

import csv
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.prepare import prepare
from linprobe.prepare.spec import BScan, DataSetSpec, Listing
from linprobe.prepare.volumes import read_gray
from retfiner.common.errors import InputError


def list_toy(folder, options):
    bscans = [
        BScan(
            name=path.stem,
            label=path.parent.name,
            patient=path.stem.split("_")[0] if options.bscan == "central" else None,
            source=path.relative_to(folder).as_posix(),
            read=partial(read_gray, path),
        )
        for path in sorted(folder.rglob("*.png"))
    ]
    return Listing(bscans, ["a note of the toy's own"])


TOY = DataSetSpec(
    name="Toy",
    task="dark against light",
    classes=("dark", "light"),
    licence="none",
    where="nowhere",
    citation="nobody",
    patients="the name's first part",
    find=list_toy,
    volumes=True,
)


@pytest.fixture
def download(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(16):
        for eye in ("OD", "OS"):
            label = TOY.classes[number % 2]
            path = tmp_path / "download" / label / f"p{number}_{eye}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            level = 60 + 80 * (number % 2)
            image = rng.integers(level, level + 60, (24, 32), dtype=np.uint8)
            image[:4] = 255
            Image.fromarray(image).save(path)
    return tmp_path / "download"


def run(download, output, **changes):
    config = PrepareConfig(name="Toy", source=[download], output=output, num_workers=0, **changes)
    return prepare(config, TOY)


def rows_of(folder):
    with (folder / "split.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(path, rows, columns=None):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def rows(download, tmp_path):
    return rows_of(run(download, tmp_path / "first", seed=7).folder)


def test_a_toy_set_is_prepared_and_described(download, tmp_path):
    prepared = run(download, tmp_path / "data", zero_borders=True, split=[0.6, 0.2, 0.2], seed=3)
    about = json.loads((prepared.folder / "dataset.json").read_text())
    assert about["done"]["split"] == {
        "rule": "random by patient, stratified by class",
        "shares": {"train": 0.6, "val": 0.2, "test": 0.2},
        "seed": 3,
    }
    assert (about["done"]["zero_borders"], about["done"]["zeroed_borders"]) == (True, 32)
    assert "a note of the toy's own" in about["notes"]
    assert sum(about["counts"][s]["all"]["images"] for s in ("train", "val", "test")) == 32
    assert sum(about["counts"][s]["dark"]["patients"] for s in ("train", "val", "test")) == 8
    assert about["source"] == [{"name": "download", "size": None, "sha256": None}]
    image = np.asarray(Image.open(prepared.folder / prepared.rows["image"][0]))
    assert (image[:4] == 0).all() and image[6:].min() >= 60
    assert str(tmp_path) not in (prepared.folder / "dataset.json").read_text()


def test_a_table_with_the_needed_columns_alone_is_enough(download, rows, tmp_path):
    moved = [row | {"split": {"val": "test", "test": "val"}.get(row["split"], "train")}
             for row in rows]  # fmt: skip
    file = write_rows(tmp_path / "s.csv", moved, ["image", "class", "patient", "split"])
    again = rows_of(run(download, tmp_path / "again", split_file=file).folder)
    assert {(r["source"], r["split"]) for r in again} == {(r["source"], r["split"]) for r in moved}
    about = json.loads((tmp_path / "again" / "Toy" / "dataset.json").read_text())
    assert about["done"]["split"]["rule"] == "as in s.csv"


def test_images_may_be_named_by_their_source(download, rows, tmp_path):
    renamed = [row | {"image": f"{k:05d}.png"} for k, row in enumerate(rows)]
    again = run(download, tmp_path / "again", split_file=write_rows(tmp_path / "s.csv", renamed))
    assert {r["split"] + r["source"] for r in rows_of(again.folder)} == {
        r["split"] + r["source"] for r in rows
    }


def test_images_the_table_leaves_out_are_left_out_and_counted(download, rows, tmp_path):
    file = write_rows(tmp_path / "s.csv", [r for r in rows if "_OS" not in r["image"]])
    prepared = run(download, tmp_path / "again", split_file=file)
    assert len(prepared.rows) == 16
    assert "16 images of the download are not in s.csv and were left out." in prepared.notes


def test_patients_come_from_the_table_where_the_download_tells_none(download, rows, tmp_path):
    file = write_rows(tmp_path / "s.csv", rows)
    again = run(download, tmp_path / "again", split_file=file, bscan="all")  # the toy tells none
    assert set(again.rows["patient"]) == {f"p{k}" for k in range(16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "light"}, "do not agree on the class"),
        ({"patient": "p99"}, "do not agree on the patient"),
        ({"sha256": "0" * 64, "pixels_sha256": ""}, "1 of 32 images are not those of"),
        ({"pixels_sha256": "0" * 64}, "1 of 32 images are not those of"),
        ({"split": "holdout"}, "line 2, does not say where"),
        ({"image": "train/dark/p99_OD.png", "source": ""}, r"(?s)1 of 32 images.*p99_OD"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    download, rows, tmp_path, change, message
):
    rows[0] |= change
    if "class" in change and rows[0]["image"].count("light"):
        rows[0]["class"] = "dark"
    with pytest.raises(InputError, match=message):
        run(download, tmp_path / "again", split_file=write_rows(tmp_path / "s.csv", rows))
    assert not (tmp_path / "again").exists()


def test_a_png_of_another_compressor_with_the_same_pixels_is_the_same_image(
    download, rows, tmp_path
):
    for row in rows:
        row["sha256"] = "0" * 64
    file = write_rows(tmp_path / "s.csv", rows)
    assert len(run(download, tmp_path / "again", split_file=file).rows) == 32


def test_an_image_named_twice_is_refused(download, rows, tmp_path):
    file = write_rows(tmp_path / "s.csv", [*rows, rows[0]])
    with pytest.raises(InputError, match="names an image twice"):
        run(download, tmp_path / "again", split_file=file)


def test_a_table_without_a_column_or_a_split_is_refused(download, rows, tmp_path):
    file = write_rows(tmp_path / "s.csv", rows, ["image", "split"])
    with pytest.raises(InputError, match="lacks class, patient"):
        run(download, tmp_path / "again", split_file=file)
    file = write_rows(tmp_path / "s.csv", [r for r in rows if r["split"] != "val"])
    with pytest.raises(InputError, match="no image in val"):
        run(download, tmp_path / "again", split_file=file)
    with pytest.raises(InputError, match="cannot be read"):
        run(download, tmp_path / "again", split_file=tmp_path / "absent.csv")


def test_a_split_that_shares_patients_is_repeated_and_that_is_said(download, rows, tmp_path):
    first = next(k for k, row in enumerate(rows) if row["split"] == "train")
    rows[first]["split"] = "test"
    prepared = run(download, tmp_path / "again", split_file=write_rows(tmp_path / "s.csv", rows))
    patient = rows[first]["patient"]
    assert f"1 patients are in several splits ({patient})." in prepared.notes


def test_a_split_and_its_rule_are_not_given_together(download, tmp_path):
    with pytest.raises(InputError, match="--split_file leaves --split and --seed"):
        run(download, tmp_path / "data", split_file=tmp_path / "s.csv", seed=0)


@pytest.mark.parametrize(
    "split", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.3, 0.3], [1.5, -0.25, -0.25]]
)
def test_shares_that_make_no_split_are_refused(download, tmp_path, split):
    with pytest.raises(InputError, match="three positive shares"):
        run(download, tmp_path / "data", split=split)
