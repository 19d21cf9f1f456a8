"""The download as one folder: joined, unpacked, and nothing written outside."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from linprobe.prepare.archives import open_source
from retfiner.common.errors import InputError


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == [], "what is temporary is gone, also after an error"


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path, members):
    with tarfile.open(path, "w:" + {".xz": "xz", ".gz": "gz"}.get(path.suffix, "")) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def opened(given, scratch):
    with open_source(given, scratch) as source:
        return content_of(source.folder), source


FILES = {"Set/AMD/a.png": b"A" * 5000, "Set/DME/b.png": os.urandom(3000), "labels.csv": b"x,y\n"}


@pytest.mark.parametrize("name", ["s.zip", "s.tar", "s.tar.gz", "s.tar.xz", "download"])
def test_archives_give_what_was_put_in(tmp_path, scratch, name):
    path = tmp_path / name
    if name.startswith("s.tar"):
        write_tar(path, FILES)
    else:
        write_zip(path, FILES)
    found, source = opened([path], scratch)
    assert found == FILES
    (record,) = source.files
    assert (record["name"], record["size"]) == (name, path.stat().st_size)
    assert len(record["sha256"]) == 64
    assert not source.folder.exists()


def test_a_plain_folder_is_read_where_it_lies(tmp_path, scratch):
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set" / "a.png").write_bytes(b"a")
    with open_source([tmp_path / "Set"], scratch) as source:
        assert source.folder == tmp_path / "Set"
        assert list(scratch.iterdir()) == []
    assert (tmp_path / "Set" / "a.png").exists()


def test_archives_within_a_folder_and_within_archives_are_unpacked(tmp_path, scratch):
    inner = write_zip(tmp_path / "inner.zip", {"AMD/1.png": b"1", "AMD/2.png": b"2"})
    outer = {"Set/inner.zip": inner.read_bytes(), "Set/readme.txt": b"r"}
    folder = tmp_path / "given"
    folder.mkdir()
    write_tar(folder / "outer.tgz", outer)
    (folder / "labels.csv").write_bytes(b"l")
    (folder / "more.rar").write_bytes(b"Rar!")
    found, source = opened([folder], scratch)
    assert found == {
        "Set/AMD/1.png": b"1",
        "Set/AMD/2.png": b"2",
        "Set/readme.txt": b"r",
        "labels.csv": b"l",
        "more.rar": b"Rar!",
    }
    assert [file["name"] for file in source.files] == ["given", "outer.tgz"]
    assert sorted(path.name for path in folder.iterdir()) == ["labels.csv", "more.rar", "outer.tgz"]


def test_several_sources_are_joined_and_stay_as_they_were(tmp_path, scratch):
    first = write_zip(tmp_path / "1.zip", {"Set/AMD/a.png": b"a", "Set/same.txt": b"s"})
    second = tmp_path / "2"
    (second / "Set" / "DME").mkdir(parents=True)
    (second / "Set" / "DME" / "b.png").write_bytes(b"b")
    (second / "Set" / "same.txt").write_bytes(b"s")
    table = tmp_path / "labels.csv"
    table.write_bytes(b"l")
    found, _ = opened([first, second, table], scratch)
    assert found == {
        "Set/AMD/a.png": b"a",
        "Set/DME/b.png": b"b",
        "Set/same.txt": b"s",
        "labels.csv": b"l",
    }
    assert content_of(second) == {"Set/DME/b.png": b"b", "Set/same.txt": b"s"}


def test_two_different_files_for_one_place_are_an_error(tmp_path, scratch):
    first = write_zip(tmp_path / "AMD.zip", {"1/a.png": b"a"})
    second = write_zip(tmp_path / "DME.zip", {"1/a.png": b"b"})
    with pytest.raises(InputError, match=r"Two different files.*a\.png"):
        opened([first, second], scratch)


def test_what_operating_systems_add_is_left_out(tmp_path, scratch):
    clutter = {"__MACOSX/Set/._a.png": b"", "Set/.DS_Store": b"", "Set/._a.png": b""}
    assert opened([write_zip(tmp_path / "a.zip", FILES | clutter)], scratch)[0] == FILES


def test_backslashes_separate(tmp_path, scratch):
    path = write_zip(tmp_path / "a.zip", {"Set\\CNV\\": b"", "Set\\CNV\\7.jpg": b"7"})
    assert opened([path], scratch)[0] == {"Set/CNV/7.jpg": b"7"}


UNSAFE = ["../out.png", "a/../../out.png", "/out.png", "..\\out.png"]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_the_folder(tmp_path, scratch, name, kind):
    write = write_zip if kind == "zip" else write_tar
    path = write(tmp_path / f"a.{kind}", {"fine.png": b"1", name: b"2"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="leads out of the folder"):
        opened([path], scratch)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/out.png").exists()


def patch_zip(path, offset_in_local, offset_in_central, value):
    """Set two bytes in the local and the central header of a zip's only member."""
    raw = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", offset_in_local), (b"PK\x01\x02", offset_in_central)):
        place = raw.index(magic) + offset
        raw[place : place + 2] = value.to_bytes(2, "little")
    path.write_bytes(raw)


def test_a_password_is_said(tmp_path, scratch):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"1"})
    patch_zip(path, 6, 8, 1)
    with pytest.raises(InputError, match=r"(?s)encrypted, password.*unpack it"):
        opened([path], scratch)


def test_an_unknown_compression_is_said(tmp_path, scratch):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"1"})
    patch_zip(path, 8, 10, 9)  # Deflate64, which Windows takes for large archives
    with pytest.raises(InputError, match=r"(?s)compression method is not supported.*unpack it"):
        opened([path], scratch)


@pytest.mark.parametrize("name", ["s.zip", "s.tar", "s.tar.gz", "s.tar.xz"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_an_archive_cut_short_is_an_error(tmp_path, scratch, name, share):
    path = tmp_path / name
    files = {f"{k}.png": os.urandom(4000) for k in range(8)}
    (write_zip if name.endswith("zip") else write_tar)(path, files)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"{name} cannot be unpacked"):
        opened([path], scratch)


def test_a_page_saved_instead_of_the_archive_is_said(tmp_path, scratch):
    (tmp_path / "a.zip").write_text("<html>Please log in</html>")
    with pytest.raises(InputError, match=r"(?s)not a zip file.*download it again"):
        opened([tmp_path / "a.zip"], scratch)


def test_kinds_that_are_not_read_are_said(tmp_path, scratch):
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07")
    with pytest.raises(InputError, match="unpack what is packed otherwise"):
        opened([tmp_path / "a.rar"], scratch)
    (tmp_path / "a.csv").write_bytes(b"x,y\n")
    with pytest.raises(InputError, match="neither a folder nor an archive"):
        opened([tmp_path / "a.csv"], scratch)
    with pytest.raises(InputError, match=r"There is no .*nowhere"):
        opened([tmp_path / "nowhere"], scratch)


def test_what_is_temporary_goes_when_the_user_interrupts(tmp_path, scratch):
    path = write_zip(tmp_path / "a.zip", FILES)
    with pytest.raises(KeyboardInterrupt), open_source([path], scratch):
        assert list(scratch.iterdir())
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.CHRTYPE])
def test_links_that_lead_out_and_devices_are_refused(tmp_path, scratch, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = kind, "../../../outside"
        tar.addfile(info)
    with pytest.raises(InputError, match=r"a\.tar cannot be unpacked"):
        opened([tmp_path / "a.tar"], scratch)


def test_linked_folders_are_entered_and_never_written_to(tmp_path, scratch):
    real = tmp_path / "elsewhere"
    real.mkdir()
    (real / "a.png").write_bytes(b"a")
    given = tmp_path / "given"
    given.mkdir()
    (given / "AMD").symlink_to(real, target_is_directory=True)
    archive = write_zip(tmp_path / "more.zip", {"AMD/b.png": b"b"})
    found, _ = opened([given, archive], scratch)
    assert found == {"AMD/a.png": b"a", "AMD/b.png": b"b"}
    assert content_of(real) == {"a.png": b"a"}
