"""Patients from tables and names."""

import pytest

from retfiner.common.errors import InputError
from retfiner.common.patients import patient_in_name, patient_of, read_split_table


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
        ("NORMAL12", None),
        ("AMRD1", None),
        ("0001", None),
        ("scan-3-4", None),
        ("P0001", None),
    ],
)
def test_rules_of_names(stem, patient):
    assert patient_in_name(stem) == patient


def write(folder, text):
    (folder / "split.csv").write_text(text, encoding="utf-8")
    return read_split_table(folder)


@pytest.mark.parametrize("image", ["train/AMD/CNV-1-1.png", "AMD/CNV-1-1.png", "CNV-1-1.png"])
def test_the_table_goes_before_the_name(tmp_path, image):
    table = write(tmp_path, f"image,class,patient,split\n{image},AMD,Miller,train\n")
    path = tmp_path / "train" / "AMD" / "CNV-1-1.png"
    assert patient_of(path, tmp_path, table) == "Miller"
    assert patient_of(path, tmp_path, {}) == "1"


def test_an_image_the_table_leaves_out_has_no_patient(tmp_path):
    table = write(tmp_path, "image,patient\na.png,1\nb.png,\n")
    assert patient_of(tmp_path / "val" / "A" / "a.png", tmp_path, table) == "1"
    assert patient_of(tmp_path / "val" / "A" / "b.png", tmp_path, table) is None
    assert patient_of(tmp_path / "val" / "A" / "P1_OD_v1.png", tmp_path, table) is None


def test_a_table_without_patients_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"split\.csv lacks a column"):
        write(tmp_path, "image,class\na.png,A\n")
    with pytest.raises(InputError, match="an empty file"):
        write(tmp_path, "")
