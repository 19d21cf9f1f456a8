"""A folder of one's own: patients, copies, spelling, pictures nobody can read."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from linprobe.datasets import read_data_set
from linprobe.prepare.config import PrepareConfig
from linprobe.prepare.folder import spec_of
from linprobe.prepare.prepare import prepare
from linprobe.targets import read_tasks
from retfiner.common.errors import InputError


def write(path, seed, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 20), dtype=np.uint8)
    Image.fromarray(coarse).resize((size, size)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    """Twelve patients of two pictures, six a class."""
    root = tmp_path / "My scans"
    for k in range(24):
        write(root / ("AMD" if k < 12 else "Normal") / f"pat{k // 2:02d}-{k}.png", k)
    return root


def run(source, output, **changes):
    config = PrepareConfig(name="folder", source=[source], output=output, num_workers=0, **changes)
    return prepare(config, spec_of(source.name))


def rows(prepared):
    with (prepared.folder / "split.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_an_image_folder_with_patients_in_its_names(pictures, tmp_path):
    prepared = run(pictures, tmp_path / "data", patient_regex=r"pat(\d+)-")
    assert prepared.folder == tmp_path / "data" / "My_scans"
    assert len({row["patient"] for row in rows(prepared)}) == 12
    data = read_data_set(prepared.folder)
    owners = [{o.patient for o in split.owners} for split in data.splits.values()]
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    assert data.notes == []
    told = " ".join(prepared.notes)
    assert "Classes of fewer than 10 patients: AMD (6), Normal (6)." in told
    assert "finds a change in balanced accuracy of" in told
    about = json.loads((prepared.folder / "dataset.json").read_text())
    assert about["done"]["patient_regex"] == r"pat(\d+)-"


def test_patients_whose_numbers_may_restart_in_each_class_are_told(pictures, tmp_path):
    write(pictures / "AMD" / "pat07-99.png", 99)
    by_number = run(pictures, tmp_path / "number", patient_regex=r"pat(\d+)-")
    assert any("1 patients, known by names alone, are in several" in n for n in by_number.notes)
    write(pictures / "AMD" / "odd.png", 98)
    odd = " ".join(run(pictures, tmp_path / "odd", patient_regex=r"pat(\d+)-").notes)
    assert "--patient_regex finds no patient in 1 of 26 pictures (AMD/odd.png): each is" in odd
    assert "1 patients, known by names alone, are in several" in odd
    (pictures / "AMD" / "odd.png").unlink()
    by_class = run(pictures, tmp_path / "class", patient_regex=r"([^/]+/pat\d+)-")
    assert len({row["patient"] for row in rows(by_class)}) == 13
    assert not any("several classes" in note for note in by_class.notes)


@pytest.mark.parametrize("around", ["", "download/v1"])
def test_a_folder_a_patient_below_the_classes_and_folders_around(tmp_path, around):
    for k in range(24):
        label = "Wet AMD, late" if k < 12 else "网膜"
        write(tmp_path / "in" / around / label / f"pat{k // 2}" / "OD" / f"{k % 2}.png", k)
    write(tmp_path / "in" / around / "网膜" / ".trash" / "a.png", 99)
    prepared = run(tmp_path / "in", tmp_path / "data")
    found = rows(prepared)
    assert {row["class"] for row in found} == {"Wet AMD, late", "网膜"}
    assert {row["patient"] for row in found} == {f"pat{k}" for k in range(12)}
    assert read_data_set(prepared.folder).notes == []


def test_a_division_of_its_own_is_kept_and_val_made(tmp_path):
    for k in range(48):
        split, label = ("Training" if k < 36 else "test"), ("AMD", "Normal")[k % 2]
        write(tmp_path / "in" / split / label / f"pat{k}-1.png", k)
    prepared = run(tmp_path / "in", tmp_path / "data", patient_regex=r"(pat\d+)-")
    found = rows(prepared)
    assert all((row["split"] == "test") == ("test" in row["source"]) for row in found)
    assert {row["split"] for row in found} == {"train", "val", "test"}
    assert {row["class"] for row in found} == {"AMD", "Normal"}


def test_patients_of_a_folder_that_is_divided_are_read_where_asked_for(tmp_path):
    for k in range(24):
        split, label = ("train", "val", "test")[k // 8], ("AMD", "Normal")[k % 2]
        write(tmp_path / "in" / split / label / f"pat{k}-1.png", k)
    kept = run(tmp_path / "in", tmp_path / "kept")
    assert {row["patient"] for row in rows(kept)} == {""}
    assert not any("Its classes are" in note for note in kept.notes)
    read = run(tmp_path / "in", tmp_path / "read", patient_regex=r"(pat\d+)-")
    assert all(row["source"].startswith(row["split"]) and row["patient"] for row in rows(read))
    write(tmp_path / "in" / "test" / "AMD" / "pat0-2.png", 99)
    with pytest.raises(InputError, match="own split shares patients"):
        run(tmp_path / "in", tmp_path / "more", patient_regex=r"(pat\d+)-")


def test_a_folder_that_is_divided_is_checked_like_any_other(tmp_path):
    for k in range(24):
        split, label = ("train", "val", "test")[k // 8], ("AMD", "Normal")[k % 2]
        write(tmp_path / "in" / split / label / f"{k}.png", k)
    first = tmp_path / "in" / "train" / "AMD" / "0.png"
    shutil.copy(first, tmp_path / "in" / "test" / "AMD" / "copy.png")
    with pytest.raises(
        InputError, match=r"more than one split(.|\n)*AMD/copy\.png = \S*AMD/0\.png"
    ):
        run(tmp_path / "in", tmp_path / "data")
    (tmp_path / "in" / "test" / "AMD" / "copy.png").unlink()
    (tmp_path / "in" / "test" / "AMD").rename(tmp_path / "in" / "test" / "AMD ")
    with pytest.raises(InputError, match="'AMD' and 'AMD '"):
        run(tmp_path / "in", tmp_path / "data")


def test_a_blank_at_the_end_of_a_class_is_shown(pictures, tmp_path):
    write(pictures / "Normal " / "a.png", 100)
    with pytest.raises(InputError, match=r"spelled in two ways(.|\n)*'Normal' and 'Normal '"):
        run(pictures, tmp_path / "data")


def test_a_table_of_labels(pictures, tmp_path):
    table = tmp_path / "labels.csv"
    lines = [f"{p.name},{'x' if k % 2 else 'y'},P{k // 3}"
             for k, p in enumerate(sorted(pictures.rglob("*.png"))[:18])]  # fmt: skip
    table.write_text("\n".join(["image,label,patient", *lines]) + "\n")
    prepared = run(pictures, tmp_path / "data", labels=table)
    assert {row["class"] for row in rows(prepared)} == {"x", "y"}
    assert len({row["patient"] for row in rows(prepared)}) == 6
    assert "6 pictures are not in labels.csv: left out." in prepared.notes
    table.write_text("image,label\nnowhere.png,x\n")
    with pytest.raises(InputError, match="have no picture or no label"):
        run(pictures, tmp_path / "again", labels=table)


def test_a_patient_in_several_spellings_stays_in_one_split(pictures, tmp_path):
    table = tmp_path / "labels.csv"
    names = sorted(p.name for p in pictures.rglob("*.png"))
    patients = [(f"P{k // 2}", f"p0{k // 2}")[k % 2] for k in range(22)] + ["unknown", "nan"]
    lines = [f"{name},{'AMD' if k < 12 else 'N'},{patients[k]}" for k, name in enumerate(names)]
    table.write_text("\n".join(["image,label,patient", *lines]) + "\n")
    prepared = run(pictures, tmp_path / "data", labels=table)
    split_of = {}
    for row in rows(prepared):
        split_of.setdefault(row["patient"], set()).add(row["split"])
    assert sorted(split_of) == ["", *sorted(f"P{k}" for k in range(11))]
    assert all(len(found) == 1 for name, found in split_of.items() if name)
    assert any(
        note.startswith("11 patients are written in several ways") for note in prepared.notes
    )


def test_what_a_table_knows_of_eyes_and_groups_goes_along(pictures, tmp_path):
    table = tmp_path / "labels.csv"
    names = sorted(p.name for p in pictures.rglob("*.png"))
    lines = [f"{name},{'AMD' if k < 12 else 'N'},P{k // 2},{'OD' if k % 2 else 'OS'},{50 + k},F,x"
             for k, name in enumerate(names)]  # fmt: skip
    table.write_text("\n".join(["image,label,patient,eye,age,sex,ward", *lines]) + "\n")
    prepared = run(pictures, tmp_path / "data", labels=table)
    assert list(rows(prepared)[0])[-3:] == ["eye", "sex", "age"]  # and no ward
    owners = [o for split in read_data_set(prepared.folder).splits.values() for o in split.owners]
    assert {(o.eye, o.sex) for o in owners} == {("OD", "F"), ("OS", "F")}
    assert {o.age for o in owners} == {"50 to 64", "65 to 79"}


def test_copies_stay_together_whatever_their_name_and_encoding(pictures, tmp_path):
    first = sorted((pictures / "AMD").iterdir())[0]
    with Image.open(first) as picture:
        for k in range(5):
            picture.resize((90, 90)).save(pictures / "AMD" / f"copy{k}.jpg", quality=70)
    prepared = run(pictures, tmp_path / "data")
    assert any(note.startswith("5 pictures are copies of others") for note in prepared.notes)
    places = {row["split"] for row in rows(prepared) if "copy" in row["source"]}
    own = [row["split"] for row in rows(prepared) if row["source"].endswith(first.name)]
    assert places == set(own)


def test_the_same_picture_in_two_classes_is_an_error(pictures, tmp_path):
    first = sorted((pictures / "AMD").iterdir())[0]
    with Image.open(first) as picture:
        picture.save(pictures / "Normal" / "other.bmp")
    with pytest.raises(InputError, match=f"AMD/{first.name} = Normal/other.bmp"):
        run(pictures, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_names_of_classes_are_compared(pictures, tmp_path):
    write(pictures / "Normals" / "a.png", 100)
    prepared = run(pictures, tmp_path / "data")
    assert "The classes Normal and Normals have nearly the same name." in prepared.notes
    write(pictures / "amd" / "b.png", 101)
    with pytest.raises(InputError, match=r"spelled in two ways(.|\n)*'AMD' and 'amd'"):
        run(pictures, tmp_path / "more")


def test_what_cannot_be_read_is_counted_and_much_of_it_an_error(pictures, tmp_path):
    for k in range(24, 36):
        write(pictures / "AMD" / f"pat{k}-{k}.png", k)
    (pictures / "AMD" / "broken.png").write_bytes(b"no picture")
    prepared = run(pictures, tmp_path / "data")
    assert any("1 of 37 pictures cannot be read" in note for note in prepared.notes)
    assert len(rows(prepared)) == 36
    for name in "abc":
        (pictures / "AMD" / f"{name}.png").write_bytes(b"")
    with pytest.raises(InputError, match="4 of 40 pictures cannot be read"):
        run(pictures, tmp_path / "more")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patient_regex": "("}, "--patient_regex cannot be used"),
        ({"patient_regex": "pat"}, "--patient_regex cannot be used"),
        ({"patient_regex": r"case(\d+)"}, "--patient_regex finds no patient in 24 of 24"),
        ({"label": "patient"}, "--label would have no effect"),
        ({"bscan": "all"}, "--bscan would have no effect"),
    ],
)
def test_flags_that_do_not_fit(pictures, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        run(pictures, tmp_path / "data", **change)


def test_a_folder_without_classes_is_refused(tmp_path):
    write(tmp_path / "flat" / "a.png", 0)
    with pytest.raises(InputError, match=r"<Class>/<picture>"):
        run(tmp_path / "flat", tmp_path / "data")
    write(tmp_path / "one" / "A" / "a.png", 0)
    with pytest.raises(InputError, match="not two classes"):
        run(tmp_path / "one", tmp_path / "data")


def test_a_table_of_labels_grades_and_values_is_prepared_and_read(tmp_path):
    table = [["image", "patient", "target_IRF", "target_SRF", "target_CST", "sex"]]
    for k in range(24):
        write(tmp_path / "in" / "scans" / f"{k}.png", k)
        table.append([f"{k}.png", f"p{k // 2}", k % 2, int(k % 3 == 0), f"{250.5 + k}", "f"])
    table[3][4] = ""  # the thickness of one is not known
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(table)
    prepared = run(tmp_path / "in", tmp_path / "data", labels=tmp_path / "labels.csv")
    assert not any("two classes" in note or "balanced accuracy" in note for note in prepared.notes)
    found = {one.name: one for one in read_tasks(prepared.folder)}
    assert {name: one.task for name, one in found.items()} == {
        "in_labels": "multilabel", "in_CST": "regression"
    }  # fmt: skip
    thickness = [v for part in found["in_CST"].splits.values() for v in part.labels.tolist()]
    assert sorted(thickness) == [250.5 + k for k in range(24) if k != 2]
    owners = [{o.patient for o in part.owners} for part in found["in_labels"].splits.values()]
    assert not owners[0] & owners[2] and sum(map(len, owners)) == 12
