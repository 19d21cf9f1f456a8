"""Where files may be written, that all or none are, and that their paths lead to the images."""

import os

import pytest

from retfiner.common.errors import InputError
from retfiner.data.check.output import FILES, image_cells, require_writable, whole_folder
from retfiner.vision.images import ImageAddress


def addresses(*paths):
    return [ImageAddress(path) for path in paths]


def test_paths_are_relative_where_both_can_be_moved_together(tmp_path):
    images = addresses(tmp_path / "scans" / "a.png", tmp_path / "out" / "in" / "b.png")
    images.append(ImageAddress(tmp_path / "scans" / "v.e2e", 12))
    images.append(ImageAddress(tmp_path / "scans" / "v.npz", 3, "bscans"))
    assert image_cells(images, tmp_path / "out") == [
        "../scans/a.png", "in/b.png", "../scans/v.e2e#12", "../scans/v.npz#bscans#3",
    ]  # fmt: skip


def test_paths_are_absolute_where_they_share_only_the_root(tmp_path):
    images = addresses(tmp_path / "a.png")
    elsewhere = next(p for p in ("/opt", "/usr", "/var") if p != f"/{tmp_path.parts[1]}")
    assert image_cells(images, type(tmp_path)(elsewhere) / "out") == [
        (tmp_path.resolve() / "a.png").as_posix()
    ]


def test_paths_lead_through_links(tmp_path):
    """``..`` climbs from where a link points to, not from where it stands."""
    real, scans = tmp_path / "deep" / "er" / "out", tmp_path / "store" / "scans"
    real.mkdir(parents=True)
    scans.mkdir(parents=True)
    (scans / "0f3a").write_text("pixels")
    (scans / "a.png").symlink_to(scans / "0f3a")
    (tmp_path / "out").symlink_to(real)
    (tmp_path / "images").symlink_to(scans)
    (cell,) = image_cells(addresses(tmp_path / "images" / "a.png"), tmp_path / "out")
    assert cell.endswith("a.png"), "the link's own name, with its suffix"
    assert (tmp_path / "out" / cell).read_text() == "pixels"


def test_all_files_or_none(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "new" / "out") as folder:
        (folder / "pairs.csv").write_text("half")
        _ = 1 / 0
    assert list((tmp_path / "new").iterdir()) == []
    with whole_folder(tmp_path / "new" / "out") as folder:
        assert folder.parent == tmp_path / "new", "relative paths mean the same from here"
        (folder / "pairs.csv").write_text("whole")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]
    assert (tmp_path / "new" / "out" / "pairs.csv").read_text() == "whole"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new" / "out").stat().st_mode & 0o777 == 0o777 & ~umask


def test_other_files_of_the_folder_stay(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    (tmp_path / "out" / "pairs.csv").write_text("old")
    with whole_folder(tmp_path / "out") as folder:
        (folder / "pairs.csv").write_text("new")
    assert {p.name: p.read_text() for p in (tmp_path / "out").iterdir()} == {
        "mine.txt": "precious", "pairs.csv": "new",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_holds_something_needs_overwrite(tmp_path):
    require_writable(tmp_path / "out", [], False)
    (tmp_path / "out").mkdir()
    require_writable(tmp_path / "out", [], False)
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(InputError, match="not empty"):
        require_writable(tmp_path / "out", [], False)
    require_writable(tmp_path / "out", [], True)
    with pytest.raises(InputError, match="no folder"):
        require_writable(tmp_path / "out" / "x", [], True)


@pytest.mark.parametrize("name", FILES[:3])
def test_the_table_that_is_read_is_never_overwritten(tmp_path, name):
    source = tmp_path / name
    source.write_text("mine")
    with pytest.raises(InputError, match="would be overwritten"):
        require_writable(tmp_path / "x" / "..", [source], True)
