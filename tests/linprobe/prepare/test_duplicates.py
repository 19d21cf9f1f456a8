"""Copies of files, and groups of whoever shares one."""

from __future__ import annotations

from linprobe.prepare.duplicates import Groups, identical_files
from tests.helpers.downloads import write_image


def test_identical_files_by_content_alone(tmp_path):
    names = ["a", "b", "c", "d"]
    paths = [write_image(tmp_path / f"{name}.png", k // 2) for k, name in enumerate(names)]
    big = bytearray(100_000)
    for name, change in (("x", 0), ("y", 99_999), ("z", 0)):
        content = bytearray(big)
        content[change] = 1
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    found = [[path.stem for path in group] for group in identical_files(paths)]
    assert sorted(found) == [["a", "b"], ["c", "d"], ["x", "z"]]
    groups = Groups()
    for first, second in (("p", "q"), ("r", "s"), ("q", "s")):
        groups.join(first, second)
    groups.join("p", "r")
    assert {groups.of(key) for key in "pqrs"} == {"p"}
    assert groups.of("t") == "t"
