"""Orders, names and counts that all data sets share."""

from __future__ import annotations

import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linprobe.prepare.files import (
    find_file,
    identical_files,
    list_files,
    safe_stem,
    scan_order,
    squeeze,
    tolerate,
    unique_names,
)
from retfiner.common.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_files_of_a_kind_at_any_depth_and_no_clutter(tmp_path):
    touch(tmp_path, "b/10.TIF", "b/9.tif", "a.tif", "b/2.png", "no_suffix", "b/c/d/1.tif")
    touch(tmp_path, "__MACOSX/b/9.tif", "b/._9.tif", "b/.tif/x.txt")
    found = [str(path) for path in list_files(tmp_path, (".tif",))]
    assert found == ["a.tif", "b/10.TIF", "b/9.tif", "b/c/d/1.tif"]


@given(st.lists(st.integers(0, 10**12), min_size=1, unique=True))
def test_bscans_are_sorted_by_their_last_number(numbers):
    paths = [PurePosixPath(f"AMD (3)/scan7_{n}.tif") for n in numbers]
    found = [int(path.stem.rpartition("_")[2]) for path in scan_order(paths)]
    assert found == sorted(numbers)


def test_the_number_counts_whatever_stands_before_it():
    names = ["b_1.tif", "a (10).tif", "c 2.tif", "a.tif"]
    found = [path.name for path in scan_order(PurePosixPath(name) for name in names)]
    assert found == ["a.tif", "b_1.tif", "c 2.tif", "a (10).tif"]


def test_words_in_names():
    assert squeeze("TREX_DME ") == squeeze("trex dme") == "trexdme"


@given(st.text(max_size=30))
def test_safe_stems_are_safe(text):
    stem = safe_stem(text)
    assert stem
    assert set(stem) <= set(string.ascii_letters + string.digits + "-_.")
    assert stem.strip("_.")


@given(st.lists(st.sampled_from(["a", "A", "a_2", "A_2", "b", "a_3"])))
def test_unique_names_are_unique_whatever_the_case(names):
    result = unique_names(names)
    assert len({name.casefold() for name in result}) == len(names)
    assert all(new.startswith(old) for old, new in zip(names, result, strict=True))
    seen = set()
    for old, new in zip(names, result, strict=True):
        assert new == old or old.casefold() in seen or old.casefold() in {"a_2", "a_3"}
        seen.add(old.casefold())


def test_a_table_is_found_whatever_its_case_and_must_be_unique(tmp_path):
    touch(tmp_path, "x/Table.CSV", "y.csv")
    files = list_files(tmp_path, (".csv",))
    assert str(find_file(tmp_path, files, "table.csv", "look")) == "x/Table.CSV"
    with pytest.raises(InputError, match="look"):
        find_file(tmp_path, files, "other.csv", "look")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "table.csv").write_bytes((tmp_path / "x/Table.CSV").read_bytes())
    files = list_files(tmp_path, (".csv",))
    assert find_file(tmp_path, files, "table.csv", "look").name.lower() == "table.csv"
    (tmp_path / "copy" / "table.csv").write_text("different")
    with pytest.raises(InputError, match="several different"):
        find_file(tmp_path, files, "table.csv", "look")


def test_a_few_bad_rows_are_told_and_many_are_an_error():
    assert tolerate("rows are odd", [], 10, "again") == []
    (note,) = tolerate("rows are odd", ["a"], 20, "again")
    assert note == "1 of 20 rows are odd; left out: a."
    with pytest.raises(InputError, match="2 of 20 rows are odd"):
        tolerate("rows are odd", ["a", "b"], 20, "again")


def test_identical_files_by_content_alone(tmp_path):
    touch(tmp_path, "a", "b", "c", "d", "e")
    for name, content in (("a", "x1"), ("b", "x2"), ("c", "x1"), ("d", "long"), ("e", "x1")):
        (tmp_path / name).write_text(content)
    found = identical_files([tmp_path / name for name in "edcba"])
    assert [[path.name for path in group] for group in found] == [["e", "c", "a"]]
