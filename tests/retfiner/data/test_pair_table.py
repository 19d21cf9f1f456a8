"""Whose image it is and where it lies, however a table writes it; slices; a table as a whole."""

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.common.patient_names import patient_key
from retfiner.data.manifest import read_manifest, read_splits
from retfiner.data.pair_table import Columns, Reading, is_no_patient, read_pairs
from retfiner.data.patient_ids import describe_dashes, judge_patients
from tests.helpers.refinement import write_csv, write_image


@pytest.mark.parametrize(
    "names",
    [
        ("0001", "1", "1.0", "'0001", " 1 ", "\u200b1", "１", "١"),
        ("P01", "p1", "P 1", "p001\u00a0"),
        ("12001", "12,001", "12.001", "12'001"),
    ],
)
def test_names_of_one_person_have_one_key(names):
    assert len({patient_key(name) for name in names}) == 1


def test_other_persons_have_other_keys():
    names = ("1", "10", "100", "P1", "P1.5", "1-2", "12", "A", "0", "P-1")
    assert len({patient_key(name) for name in names}) == len(names)


def test_dashes_are_pointed_out_and_tell_patients_apart():
    note = describe_dashes(["P-1", "P1", "P_2", "p2", "#3", "3", "P4", "P5"])
    assert "3 patients differ" in note
    assert describe_dashes(["P1", "P2", "1-2", "12", "P1", "A-B", "AB"]) is None


def test_what_stands_for_no_patient():
    for name in ("#N/A", "#NV", "####", "-", "k. A.", "unknown", "Err:502", "n.d."):
        assert is_no_patient(name)
    for name in ("#12", "#0007", "X", "XX1", "7", "A", "no 3"):
        assert not is_no_patient(name)


def images(folder, count):
    for k in range(count):
        write_image(folder / "scans" / f"{k}.png", k)


def test_one_person_in_two_spellings_is_no_two(tmp_path):
    images(tmp_path, 4)
    train = write_csv(
        tmp_path / "t.csv", [[f"scans/{k}.png", f"finding {k}", f"000{k}"] for k in range(3)]
    )
    val = write_csv(
        tmp_path / "v.csv", [["scans/3.png", "finding", "1"], ["scans/2.png", "x y", "9"]]
    )
    with pytest.raises(InputError, match="both sides") as caught:
        read_splits(train, val)
    assert "another way" in str(caught.value) and "--patient_ids exact" in str(caught.value)
    read_splits(train, val, reading=Reading(patient_ids="exact"))
    both = write_csv(
        tmp_path / "b.csv", [["scans/0.png", "a b", "01"], ["scans/1.png", "a c", "1.0"]]
    )
    manifest = read_manifest(both)
    assert manifest.patients == ["01", "01"]
    assert any("rows 2 and 3" in note and "one person" in note for note in manifest.notes)
    assert read_manifest(both, reading=Reading(patient_ids="exact")).patients == ["01", "1.0"]


def test_columns_that_are_no_patients_are_questioned():
    files = range(24)
    assert "one patient has 12 of 24" in judge_patients(["m", "f"] * 12, files)[0]
    assert "is a date in 24 rows" in judge_patients([f"{k % 12 + 1}. Mrz" for k in files], files)[0]
    assert "each patient has one image" in judge_patients([str(k) for k in files], files)[0]
    assert "eye alone" in judge_patients([f"P{k // 2}_{'RL'[k % 2]}" for k in files], files)[0]
    assert judge_patients([f"P{k // 2}" for k in files], files) == []


@pytest.mark.parametrize(
    ("path", "note"),
    [
        ("scans\\{}.png", "in place of"),
        ("D:\\Export\\Study 1\\scans\\{}.png", "begin with D:\\Export\\Study 1, which is not here"),
        ("/mnt/elsewhere/scans/{}.png", "begin with /mnt/elsewhere, which"),
        ("Scans/{}.PNG", "another case"),
        ("scans/{}", "lack the suffix"),
        ("%73cans/{}.png", "as in an address"),
        ("file:///C:/Study%201/scans/{}.png", "begin with C:/Study 1, which is not here"),
        ("/scans/{}.png", "begin with /, which"),
        ("export/2024/scans/{}.png", "begin with export/2024, which"),
        ("'\u200bscans/{}.png'", None),
        ('"scans/{}.png"', None),
        ("./scans/{}.png", None),
    ],
)
def test_paths_of_other_machines_are_found_and_it_is_said(tmp_path, path, note):
    images(tmp_path, 3)
    table = write_csv(
        tmp_path / "t.csv", [[path.format(k), f"finding {k}", f"p{k}"] for k in range(3)]
    )
    manifest = read_manifest(table)
    assert [image.path.resolve() for image in manifest.images] == [
        tmp_path / "scans" / f"{k}.png" for k in range(3)
    ]
    assert (note is None and not manifest.notes) or any(note in n for n in manifest.notes)


def test_a_path_is_not_guessed_where_there_are_two(tmp_path):
    images(tmp_path, 2)
    (tmp_path / "scans" / "0.png").rename(tmp_path / "scans" / "a.png")
    (tmp_path / "scans" / "1.png").rename(tmp_path / "scans" / "A.png")
    rows = [["scans/A.PNG", "cyst", "p0"], ["scans/a", "cyst", "p1"]]
    with pytest.raises(InputError, match="2 of 2 rows"):
        read_manifest(write_csv(tmp_path / "t.csv", rows))
    drives = [[f"{drive}:\\scans\\a.png", "cyst", drive] for drive in "CD"]
    with pytest.raises(InputError, match="2 of 2 rows"):
        read_manifest(write_csv(tmp_path / "t.csv", drives))


def test_paths_that_are_nowhere_are_told_what_they_share(tmp_path):
    rows = [[f"D:\\Study\\a{k}\\x.png", "cyst", f"p{k}"] for k in range(2)]
    with pytest.raises(InputError, match="of another machine") as caught:
        read_manifest(write_csv(tmp_path / "t.csv", rows))
    assert "begin with D:\\Study:" in str(caught.value)


def volume_table(folder, slices):
    np.save(folder / "v.npy", np.zeros((6, 8, 8), np.uint8))
    rows = [["v.npy", f"finding {k}", "p", str(k)] for k in slices]
    return write_csv(folder / "t.csv", rows, ("image", "report", "patient_id", "slice"))


def test_slices_counted_from_1(tmp_path):
    path = volume_table(tmp_path, range(1, 7))
    with pytest.raises(InputError, match=r"counted from 1[\s\S]*--first_slice 1"):
        read_pairs(path, Columns())
    rows = read_pairs(path, Columns(), reading=Reading(first_slice=1)).rows
    assert [row.image.index for row in rows] == list(range(6))
    path = volume_table(tmp_path, (1, 3, 5))
    (warning,) = read_pairs(path, Columns()).warnings
    assert "slice 0" in warning
    assert read_pairs(path, Columns(), reading=Reading(first_slice=0)).warnings == []
    assert read_pairs(volume_table(tmp_path, (0, 3)), Columns()).warnings == []


def test_slices_of_pictures_and_of_paths(tmp_path):
    images(tmp_path, 2)
    rows = [[f"scans/{k}.png", f"cyst {k}", f"p{k}", str(7 + k)] for k in range(2)]
    path = write_csv(tmp_path / "t.csv", rows, ("image", "report", "patient_id", "slice"))
    manifest = read_manifest(path)
    assert [image.index for image in manifest.images] == [None, None]
    assert "column slice is left alone" in manifest.notes[0]

    volume_table(tmp_path, ())
    rows = [[f"v.npy#{k}", f"finding {k}", "p"] for k in range(1, 7)]
    with pytest.raises(InputError, match=r"counted from 1[\s\S]*a column slice"):
        read_pairs(write_csv(tmp_path / "t.csv", rows), Columns())
    rows = [["v.npy", "finding", "p", number] for number in ("0", "2,0", "3.0")]
    path = write_csv(tmp_path / "t.csv", rows, ("image", "report", "patient_id", "slice"))
    assert [row.image.index for row in read_pairs(path, Columns()).rows] == [0, 2, 3]


def test_a_letterhead_is_announced_and_taken_off(tmp_path):
    images(tmp_path, 10)
    head = "Eye clinic of the example hospital. OCT of the macula, both eyes. Findings:"
    rows = [[f"scans/{k}.png", f"{head} {'abcdefghij'[k]} cyst", f"p{k}"] for k in range(10)]
    path = write_csv(tmp_path / "t.csv", rows)
    assert any("--strip_common" in note for note in read_manifest(path).notes)
    stripped = read_manifest(path, reading=Reading(strip_common=True))
    assert stripped.reports[2] == "c cyst"
