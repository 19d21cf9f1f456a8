"""The table of pairs: what is read, what is refused and in which words, who goes where."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GroupShuffleSplit

from retfiner.common.errors import InputError
from retfiner.data.manifest import (
    Manifest,
    read_manifest,
    require_disjoint_patients,
    split_by_patient,
    split_groups,
    why_unusable,
)
from retfiner.data.pair_table import Columns, read_reports
from retfiner.vision import ImageAddress
from tests.helpers.refinement import damage_in_the_middle, write_csv, write_image, write_pairs


@pytest.fixture
def image(tmp_path):
    write_image(tmp_path / "a.png", 0)
    return "a.png"


def table(patients, source="pairs.csv"):
    n = len(patients)
    images = [ImageAddress(Path(f"{i}.png")) for i in range(n)]
    return Manifest(Path(source), images, ["r"] * n, patients, list(range(2, n + 2)), [])


def test_pairs_come_as_they_stand_in_the_file(tmp_path):
    path = write_pairs(tmp_path, pairs=6, patients=3)
    manifest = read_manifest(path)
    assert manifest.images[1] == ImageAddress(tmp_path / "images" / "scan_001.jpg")
    assert manifest.reports[4] == "B-scan with no fluid nasal of the fovea, scan 4."
    assert manifest.patients == [f"patient-{i % 3:03d}" for i in range(6)]
    assert manifest.rows == [2, 3, 4, 5, 6, 7]
    assert manifest.skipped == []


def test_a_spreadsheet_export_is_read(tmp_path, image):
    """Byte order mark, CRLF, quoted commas, quotes and line breaks, other columns, white space."""
    text = (
        '\ufeffid,report , image,patient_id\r\n1,"Cyst, ""large"",\r\n  no fluid", a.png ,p1\r\n'
        "2,Ödem der Makula,a.png, p2 \r\n"
    )
    (tmp_path / "pairs.csv").write_bytes(text.encode())
    manifest = read_manifest(tmp_path / "pairs.csv")
    assert manifest.reports == ['Cyst, "large", no fluid', "Ödem der Makula"]
    assert manifest.patients == ["p1", "p2"]
    assert manifest.images == [ImageAddress(tmp_path / "a.png")] * 2


def test_row_numbers_are_those_of_a_spreadsheet(tmp_path, image):
    (tmp_path / "p.csv").write_text(
        'image,report,patient_id\na.png,"two\nlines",p\n\na.png,cyst,p\nmissing.png,cyst,p\n'
    )
    with pytest.raises(InputError, match=r"1 of 3 rows .*") as caught:
        read_manifest(tmp_path / "p.csv")
    assert "row 5: there is no file" in str(caught.value)  # header 1, pair 2, blank 3, pair 4


def test_a_comma_that_is_not_quoted_shifts_no_column(tmp_path, image):
    (tmp_path / "p.csv").write_text(
        "image,report,patient_id\na.png,fluid,p1\na.png,foveal cyst, with fluid,p2\n"
    )
    with pytest.raises(InputError, match="row 3: 4 fields where the header has 3"):
        read_manifest(tmp_path / "p.csv")
    kept = read_manifest(tmp_path / "p.csv", on_bad_row="skip")
    assert (kept.rows, kept.patients) == ([2], ["p1"])
    with pytest.raises(InputError, match="row 3: 4 fields"):
        read_reports(tmp_path / "p.csv")


def test_image_root_and_column_names(tmp_path):
    write_image(tmp_path / "scans" / "x.png", 1)
    path = write_csv(tmp_path / "t" / "p.csv", [["x.png", "cyst", "7"]], ("file", "text", "mrn"))
    manifest = read_manifest(path, tmp_path / "scans", Columns("file", "text", "mrn"))
    assert manifest.images == [ImageAddress(tmp_path / "scans" / "x.png")]
    assert (manifest.reports, manifest.patients) == (["cyst"], ["7"])


def test_an_absolute_image_path_needs_no_root(tmp_path, image):
    path = write_csv(tmp_path / "t" / "p.csv", [[str(tmp_path / image), "cyst", "7"]])
    assert read_manifest(path).images == [ImageAddress(tmp_path / image)]


def test_without_patients_none_is_read(tmp_path, image):
    path = write_csv(tmp_path / "p.csv", [[image, "cyst"]], ("image", "report"))
    assert read_manifest(path, columns=Columns(patient="none")).patients is None


def bad_rows(folder):
    """One row of every kind that cannot be used, and three that can."""
    write_image(folder / "good.png", 0)
    write_image(folder / "good.jpg", 1)
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:-30])
    (folder / "cut.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-30])
    (folder / "page.png").write_text("<!doctype html><title>Please log in</title>" * 9)
    (folder / "scan.xyz").write_bytes((folder / "good.png").read_bytes())
    (folder / "folder.png").mkdir()
    rows = [
        ["good.png", "cyst", "p1"],
        ["", "cyst", "p2"],
        ["nowhere.png", "cyst", "p2"],
        ["empty.png", "cyst", "p2"],
        ["cut.png", "cyst", "p2"],
        ["cut.jpg", "cyst", "p2"],
        ["page.png", "cyst", "p2"],
        ["scan.xyz", "cyst", "p2"],
        ["folder.png", "cyst", "p2"],
        ["good.jpg", "", "p2"],
        ["good.jpg", "NaN", "p2"],
        ["good.jpg", "cyst", " "],
        ["good.jpg"],
        ["good.jpg", "cyst", "p3"],
        ["good.png", "fluid", "p4"],
    ]
    reasons = {
        3: "no image named",
        4: "there is no file",
        5: "is empty",
        6: "cut.png ends too early",
        7: "cut.jpg ends too early",
        8: "page.png is no image: it begins with b'<!doctyp'",
        9: "scan.xyz is no image of a known kind",
        10: "folder.png cannot be read",
        11: "empty report",
        12: "placeholder for a report",
        13: "no patient named",
        14: "empty report",
    }
    return write_csv(folder / "pairs.csv", rows), reasons


def test_skip_leaves_bad_rows_out_and_says_which(tmp_path):
    path, reasons = bad_rows(tmp_path)
    kept = read_manifest(path, on_bad_row="skip")
    assert kept.rows == [2, 15, 16]
    assert kept.patients == ["p1", "p3", "p4"]
    assert [row for row, _ in kept.skipped] == list(reasons)
    for row, reason in kept.skipped:
        assert reasons[row] in reason


def test_error_names_rows_and_paths_but_no_patient(tmp_path):
    path, reasons = bad_rows(tmp_path)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert "12 of 15 rows" in message
    assert [int(row) for row in re.findall(r"row (\d+):", message)] == list(reasons)[:8]
    assert str(tmp_path / "nowhere.png") in message
    assert "... and 4 more" in message
    assert not re.search(r"\bp[1-4]\b", message)
    for label in ("got:", "expected:", "remedy:"):
        assert label in message


def test_no_usable_row_is_an_error_even_when_skipping(tmp_path):
    path = write_csv(tmp_path / "p.csv", [["x.png", "cyst", "p"]])
    with pytest.raises(InputError, match="no row of"):
        read_manifest(path, on_bad_row="skip")
    with pytest.raises(InputError, match="a header without rows"):
        read_manifest(write_csv(tmp_path / "q.csv", []))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,text,patient_id\n", "lacks a column.*\n.*image, text, patient_id.*\n.*report"),
        (b"image;report;patient_id\n", "a header without rows"),
        (
            b"file;text;mrn\n",
            "lacks a column.*\n.*3 fields parted by semicolons, none by such a name",
        ),
        (b"a.png,fluid,p1\n", "lacks a column.*\n.*the first line is a pair and no header"),
        (b"", "lacks a column"),
        (b"image,report,report,patient_id\n", "a column twice"),
        (
            "image,report,patient_id\na.png,\u00f8\u00fe\u00fd,p\n".encode("latin1"),
            r"not UTF-8.*(\n.*)+--table_encoding",
        ),
        (b'image,report,patient_id\na.png,"cyst,p\nb.png,x,p\n', "not a well-formed CSV"),
        (
            b'image,report,patient_id\na.png,"5 mm" cyst, flat,p\n',
            "not a well-formed CSV.*\n.*line 2",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_explained(tmp_path, content, message):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "p.csv")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing\.csv"):
        read_manifest(tmp_path / "nothing.csv")


def test_reports_alone_need_no_image(tmp_path):
    path = write_csv(tmp_path / "p.csv", [["nowhere.png", " two  words ", ""]])
    assert read_reports(path) == ["two words"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_intact_images_pass(tmp_path, suffix):
    write_image(tmp_path / f"a.{suffix}", 3)
    assert why_unusable(tmp_path / f"a.{suffix}") is None


def test_what_a_camera_appends_does_not_make_a_file_cut(tmp_path):
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        write_image(path, 3)
        path.write_bytes(path.read_bytes() + b"\0trailer" * 500)
        assert why_unusable(path) is None


def test_a_bare_array_passes(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), dtype=np.uint8))
    assert why_unusable(tmp_path / "a.npy") is None


def test_damage_in_the_middle_is_not_found_by_a_glance(tmp_path):
    """It is found when the image is decoded; test_pairs and test_refine follow it there."""
    write_image(tmp_path / "a.png", 3)
    damage_in_the_middle(tmp_path / "a.png")
    assert why_unusable(tmp_path / "a.png") is None
    with pytest.raises((OSError, SyntaxError)), Image.open(tmp_path / "a.png") as opened:
        opened.load()


def test_the_split_keeps_patients_together_and_holds_out_their_share():
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in rng.integers(0, 40, 300)]
    train, validation = split_by_patient(table(patients), 0.25, seed=3)
    assert set(train.patients) & set(validation.patients) == set()
    assert sorted(train.rows + validation.rows) == list(range(2, 302))
    assert len(set(validation.patients)) == 10
    for part in (train, validation):  # image, patient and row stay together
        assert all(patients[row - 2] == p for row, p in zip(part.rows, part.patients, strict=True))
        assert [i.path.stem for i in part.images] == [str(row - 2) for row in part.rows]


def test_the_split_depends_on_the_seed_alone():
    patients = [f"p{i % 20}" for i in range(60)]
    rows = [split_by_patient(table(patients), 0.2, seed)[1].rows for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(("fraction", "held_out"), [(0.01, 1), (0.5, 1), (0.99, 1)])
def test_both_sides_get_a_patient(fraction, held_out):
    train, validation = split_by_patient(table(["a", "b"]), fraction, 0)
    assert (len(train), len(validation)) == (2 - held_out, held_out)


def test_a_single_patient_cannot_be_split():
    with pytest.raises(InputError, match="single patient") as caught:
        split_by_patient(table(["secret"] * 5), 0.2, 0)
    assert "--val_csv" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_patients_each_pair_stands_for_itself():
    train, validation = split_by_patient(table_of_none(10), 0.2, 0)
    assert (len(train), len(validation)) == (8, 2)
    assert sorted(train.rows + validation.rows) == list(range(2, 12))


def table_of_none(n):
    named = table([""] * n)
    return Manifest(named.source, named.images, named.reports, None, named.rows, [])


def test_a_patient_on_both_sides_is_an_error_that_names_rows_only():
    train, validation = table(["a", "b", "c"], "train.csv"), table(["x", "b", "y", "b"], "val.csv")
    with pytest.raises(InputError, match="both sides") as caught:
        require_disjoint_patients(train, validation)
    message = str(caught.value)
    assert "1 patients of val.csv are in train.csv too, in rows 3, 5" in message
    assert not re.search(r"\bb\b", message.replace("--", ""))
    require_disjoint_patients(train, table(["x", "y"], "val.csv"))


@pytest.mark.parametrize("seed", range(5))
def test_patients_are_split_as_scikit_learn_does(seed):
    drawn = np.random.default_rng(seed).integers(0, 30, 80)
    groups = [f"patient {number}" for number in drawn]
    held_out = math.ceil(0.13 * len(set(groups)))
    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=seed)
    expected = next(splitter.split(drawn, groups=groups))
    found = split_groups(groups, 0.13, seed, "pairs.csv")
    assert found == tuple(part.tolist() for part in expected)
