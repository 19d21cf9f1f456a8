"""Patients from tables and names."""

import pytest

from retfiner.common.errors import InputError
from retfiner.common.patients import (
    Owner,
    age_group,
    check_images,
    owner_in_name,
    owner_of,
    read_split_table,
    same_people,
)


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("P0001_OD_v1", "P0001"),
        ("TA00023_OS_v2", "TA00023"),
        ("P12_OS", "P12"),
        ("CNV-1016042-1", "1016042"),
        ("NORMAL-15208-1_dup84fb", "15208"),  # a copy that a tool has marked
        ("NORMAL-1016042-12", "1016042"),  # the same number in another class: one patient
        ("dme_1132061_1", "1132061"),
        ("AMD_77_3", "77"),
        ("NORMAL12", ""),
        ("AMRD1", ""),
        ("0001", ""),
        ("scan-3-4", ""),
        ("P0001", ""),
    ],
)
def test_rules_of_names(stem, patient):
    assert owner_in_name(stem).patient == patient


def write(folder, text):
    (folder / "split.csv").write_text(text, encoding="utf-8")
    return read_split_table(folder)


@pytest.mark.parametrize("image", ["train/AMD/CNV-1-1.png", "AMD/CNV-1-1.png", "CNV-1-1.png"])
def test_the_table_goes_before_the_name(tmp_path, image):
    table = write(tmp_path, f"image,class,patient,split\n{image},AMD,Miller,train\n")
    path = tmp_path / "train" / "AMD" / "CNV-1-1.png"
    assert owner_of(path, tmp_path, table).patient == "Miller"
    assert owner_of(path, tmp_path, {}).patient == "1"


def test_an_image_the_table_leaves_out_has_no_patient(tmp_path):
    table = write(tmp_path, "image,patient\na.png,1\nb.png,\n")
    folder = tmp_path / "val" / "A"
    assert owner_of(folder / "a.png", tmp_path, table).patient == "1"
    assert owner_of(folder / "b.png", tmp_path, table) == Owner()
    assert owner_of(folder / "P1_OD_v1.png", tmp_path, table) == Owner()


def test_eye_and_volume(tmp_path):
    table = write(
        tmp_path,
        "image,patient,eye,volume,source\n"
        "P1_OS_v1.png,1,,,a/b.mat#50\n"
        "x.png,2,OD,V7,c.png\n"
        "y.png,3,,,c.png\n",
    )
    owners = [owner_of(tmp_path / "val" / "A" / n, tmp_path, table)
              for n in ("P1_OS_v1.png", "x.png", "y.png")]  # fmt: skip
    assert owners == [Owner("1", "OS", "a/b.mat"), Owner("2", "OD", "V7"), Owner("3")]
    assert owner_in_name("P1_OS_v1") == Owner("P1", "OS")


def test_a_table_without_patients_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"split\.csv lacks a column"):
        write(tmp_path, "image,class\na.png,A\n")
    with pytest.raises(InputError, match="an empty file"):
        write(tmp_path, "")


@pytest.mark.parametrize(
    ("age", "group"),
    [("49.9", "0 to 49"), ("50", "50 to 64"), ("79", "65 to 79"), ("80", "80 or more"),
     ("60s", "60s"), ("", ""), ("067Y", "65 to 79"), ("67,5", "65 to 79"), ("55 years", "50 to 64"),
     ("008M", "0 to 49"), ("720M", "50 to 64"), ("80 or more", "80 or more"), ("nan", ""),
     ("-9", ""), ("-1", ""), ("999", ""), ("inf", ""), ("1958-02-03", ""), ("03.02.1958", "")],
)  # fmt: skip
def test_ages_are_grouped(age, group):
    assert age_group(age) == group


def test_groups_are_read_and_no_age_finer_than_they_are(tmp_path):
    text = "image,patient,sex,age,device,race\na.png,1, F ,67,Cirrus,Asian\nb.png,2,,,,\n"
    (tmp_path / "split.csv").write_text(text)
    found = read_split_table(tmp_path)
    assert found["a.png"][3:] == ("F", "65 to 79", "Cirrus", "Asian", "")
    assert found["b.png"][3:] == ("", "", "", "", "")


def test_what_spreadsheets_put_around_cells_is_taken_off(tmp_path):
    text = "image,patient,eye\n.\\train\\AMD\\a.png , P1 ,R\nb.png,unknown,od\n,,\nc.png,nan,L\n"
    found = write(tmp_path, text)
    assert found == {
        "train/AMD/a.png": Owner("P1", "OD"),
        "b.png": Owner("", "OD"),
        "c.png": Owner("", "OS"),
    }


def test_rows_of_one_image_agree(tmp_path):
    assert len(write(tmp_path, "image,patient\na.png,1\na.png,1\n")) == 1
    with pytest.raises(
        InputError, match=r"two rows of a\.png that differ(.|\n)*patient '1' and '2'"
    ):
        write(tmp_path, "image,patient\na.png,1\na.png,2\n")


def test_a_person_has_one_name():
    owners = [Owner(name) for name in ("P1", "p1 ", "0001", "1.0", "", "P-1")]
    found, [note] = same_people(owners)
    assert [owner.patient for owner in found] == ["P1", "P1", "0001", "0001", "", "P-1"]
    assert note.startswith("2 patients are written in several ways") and "0001, P1" in note
    assert same_people(found) == (found, [])


def test_each_row_is_of_one_image(tmp_path):
    paths = [tmp_path / split / "A" / "1.png" for split in ("train", "val")]
    assert check_images(paths, tmp_path, {"train/A/1.png": 0, "val/A/1.png": 0}) == []
    assert check_images(paths[:1], tmp_path, {"1.png": 0, "2.png": 0}) == [
        "1 rows of split.csv are of no image: 2.png."
    ]
    with pytest.raises(InputError, match=r"several images each(.|\n)*1.png: train/A/1.png, val/A/"):
        check_images(paths, tmp_path, {"1.png": 0})
    with pytest.raises(InputError, match="names none of the 2 images"):
        check_images(paths, tmp_path, {"A/train/1.png": 0})
