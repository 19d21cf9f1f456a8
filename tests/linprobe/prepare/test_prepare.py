"""From downloads to data sets: what is written, what is refused, and what is left behind."""

from __future__ import annotations

import csv
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from linprobe.datasets import read_data_set
from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.prepare import prepare
from linprobe.prepare.registry import DATASETS, find_spec
from retfiner.common.errors import InputError
from tests.helpers import downloads


def run(name, source, output, **changes):
    sources = source if isinstance(source, list) else [source]
    config = PrepareConfig(name=name, source=sources, output=output, num_workers=0, **changes)
    return prepare(config, find_spec(name))


def table(folder):
    with (folder / "split.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.fixture
def octdl(tmp_path):
    return downloads.write_octdl(tmp_path / "download", per_class=8)


def test_an_archive_becomes_what_probing_reads(octdl, tmp_path):
    prepared = run("OCTDL", zipped(octdl, tmp_path / "OCTDL.zip"), tmp_path / "data")
    assert prepared.folder == tmp_path / "data" / "OCTDL"
    rows = table(prepared.folder)
    assert len(rows) == 56
    assert list(rows[0])[:6] == ["image", "class", "patient", "split", "source", "sha256"]
    data = read_data_set(prepared.folder)
    assert data.classes == sorted(downloads.OCTDL_CLASSES)
    assert all(len(split) > 0 for split in data.splits.values())
    owners = [{o.patient for o in split.owners} for split in data.splits.values()]
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    row = rows[0]
    picture = np.asarray(Image.open(prepared.folder / row["image"]))
    original = np.asarray(Image.open(octdl / row["source"]).convert("L"))
    assert picture.dtype == np.uint8 and np.abs(picture.astype(int) - original).max() <= 1
    about = json.loads((prepared.folder / "dataset.json").read_text())
    assert about["licence"] == "CC BY 4.0"
    train = about["counts"]["train"]["all"]["images"]
    assert train == len(data.splits["train"]) == pytest.approx(28, abs=4)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["OCTDL"]


def test_the_same_seed_splits_alike_and_another_does_not(octdl, tmp_path):
    def splits(output, **changes):
        rows = table(run("OCTDL", octdl, tmp_path / output, **changes).folder)
        return {row["source"]: row["split"] for row in rows}

    assert splits("a") == splits("b", seed=0)
    assert splits("a2", seed=1) != splits("b2", seed=0)


def test_what_is_there_stays_without_overwrite(octdl, tmp_path):
    folder = run("OCTDL", octdl, tmp_path / "data").folder
    before = (folder / "split.csv").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        run("OCTDL", octdl, tmp_path / "data", seed=3)
    assert (folder / "split.csv").read_bytes() == before
    run("OCTDL", octdl, tmp_path / "data", seed=3, overwrite=True)
    assert (folder / "split.csv").read_bytes() != before


def test_an_unreadable_image_is_named_and_leaves_the_old_data_set(octdl, tmp_path):
    folder = run("OCTDL", octdl, tmp_path / "data").folder
    before = (folder / "split.csv").read_bytes()
    broken = octdl / "OCTDL" / "DME" / "dme_1132010_1.jpg"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match="dme_1132010_1"):
        run("OCTDL", octdl, tmp_path / "data", overwrite=True)
    assert (folder / "split.csv").read_bytes() == before
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["OCTDL"]


def test_a_class_that_is_absent_is_an_error(octdl, tmp_path):
    labels = octdl / "OCTDL_labels.csv"
    kept = [line for line in labels.read_text().splitlines() if ",RAO," not in line]
    labels.write_text("\n".join(kept) + "\n")
    for image in (octdl / "OCTDL" / "RAO").iterdir():
        image.unlink()
    with pytest.raises(InputError, match="RAO"):
        run("OCTDL", octdl, tmp_path / "data")


def test_flags_of_no_effect_are_refused(octdl, tmp_path):
    with pytest.raises(InputError, match="--label, --bscan would have no effect"):
        run("OCTDL", octdl, tmp_path / "data", label="patient", bscan="all")


def test_unknown_patients_are_said_to_be(tmp_path):
    source = downloads.write_octid(tmp_path / "download", per_class=8)
    prepared = run("OCTID", source, tmp_path / "data")
    about = json.loads((prepared.folder / "dataset.json").read_text())
    assert "patient" in " ".join(prepared.notes) and "none published" in about["done"]["patients"]
    assert {row["patient"] for row in table(prepared.folder)} == {""}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("Duke_iAMD", lambda folder: downloads.write_duke(folder, per_class=4)),
        ("Srinivasan", lambda folder: downloads.write_srinivasan(folder, per_class=4)),
        ("Kermany", downloads.write_kermany),
    ],
)
def test_no_patient_is_in_two_splits_of_any(name, make, tmp_path):
    prepared = run(name, make(tmp_path / "download"), tmp_path / "data")
    splits = {}
    for row in table(prepared.folder):
        assert splits.setdefault(row["patient"], row["split"]) == row["split"]
    assert set(splits.values()) == {"train", "val", "test"}


def test_every_data_set_names_itself_and_can_be_found():
    assert all(name == spec.name for name, spec in DATASETS.items())
    assert all(sum(spec.split) == pytest.approx(1) for spec in DATASETS.values())
    with pytest.raises(InputError, match=r"no data set Foo[\s\S]*OCTDL"):
        find_spec("Foo")


@pytest.mark.parametrize(
    "split", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.3, 0.3], [1.5, -0.25, -0.25]]
)
def test_shares_that_make_no_split_are_refused(octdl, tmp_path, split):
    with pytest.raises(InputError, match="three positive shares"):
        run("OCTDL", octdl, tmp_path / "data", split=split)


def test_what_was_done_is_described(octdl, tmp_path):
    prepared = run(
        "OCTDL", octdl, tmp_path / "data", zero_borders=True, split=[0.6, 0.2, 0.2], seed=3
    )
    about = json.loads((prepared.folder / "dataset.json").read_text())
    assert about["done"]["split"] == {
        "rule": "random by patient, stratified by class",
        "shares": {"train": 0.6, "val": 0.2, "test": 0.2},
        "seed": 3,
    }
    assert about["done"]["zeroed_borders"] == int((prepared.rows["border"] > 0).sum())
    assert sum(about["counts"][s]["all"]["images"] for s in ("train", "val", "test")) == 56
    assert about["source"] == [{"name": "download"}]
    assert str(tmp_path) not in (prepared.folder / "dataset.json").read_text()
