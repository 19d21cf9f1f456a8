"""Addresses: a file, and a place in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfiner.common.errors import InputError
from retfiner.vision import ImageAddress


@pytest.mark.parametrize(
    ("text", "path", "index", "member"),
    [
        ("scan.png", "scan.png", None, None),
        ("a b/scan.e2e#12", "a b/scan.e2e", 12, None),
        ("scan.e2e#0", "scan.e2e", 0, None),
        ("visit#2/scan.e2e#007", "visit#2/scan.e2e", 7, None),
        ("visit#2/scan.png", "visit#2/scan.png", None, None),
        ("scan.npz#bscans", "scan.npz", None, "bscans"),
        ("scan.NPZ#bscans#3", "scan.NPZ", 3, "bscans"),
        ("scan.npz#3", "scan.npz", 3, None),
    ],
)
def test_parts(text, path, index, member):
    address = ImageAddress.parse(text)
    assert address == ImageAddress(Path(path), index, member)
    assert ImageAddress.parse(str(address)) == address


def test_a_real_file_wins_over_what_its_name_could_mean(tmp_path):
    for name in ("eye#2.png", "eye#3"):
        (tmp_path / name).write_bytes(b"")
        assert ImageAddress.parse(tmp_path / name) == ImageAddress(tmp_path / name)
    assert ImageAddress.parse(tmp_path / "eye#3#4") == ImageAddress(tmp_path / "eye#3", 4)


@pytest.mark.parametrize("fragment", ["-1", "1.5", "last", "", "9" * 30, "١"])
def test_an_index_that_is_none_is_explained(tmp_path, fragment):
    (tmp_path / "scan.e2e").write_bytes(b"")
    with pytest.raises(InputError, match=r"a whole number, 0 for the first B-scan"):
        ImageAddress.parse(f"{tmp_path}/scan.e2e#{fragment}")


def test_a_name_that_no_file_can_have_is_no_crash():
    assert ImageAddress.parse("#" + "x" * 5000).index is None
