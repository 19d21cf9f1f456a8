"""Which reader a file gets, what is kept open, and what sniffing finds."""

from __future__ import annotations

import os
import shutil
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision import ImageAddress, count_images, iter_images, read_image
from retfiner.vision.images import (
    READERS,
    VolumeError,
    is_image_file,
    list_image_files,
    open_images,
    why_unusable,
)
from retfiner.vision.images.reading import REMEMBERED
from tests.helpers.image_files import (
    as_deep,
    assert_read,
    bscans,
    dicom,
    topcon_compressed,
    topcon_raw,
    write_dicom,
    write_e2e,
    write_img,
    write_topcon,
    write_vol,
)

VOLUME = bscans(3)


def write_volumes(folder, volume=VOLUME):
    """Write a volume in every format that holds volumes."""
    np.save(folder / "a.npy", volume)
    np.savez(folder / "a.npz", volume)
    pages = [Image.fromarray(bscan) for bscan in volume]
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    paths = [folder / "a.npy", folder / "a.npz", folder / "a.tif"]
    count, _, width = volume.shape
    paths += [
        write_dicom(folder / "a.dcm", dicom(volume)),
        write_vol(folder / "a.vol", (volume / 255).astype(np.float32)),
        write_e2e(folder / "a.e2e", {1: volume.astype(np.uint16) + 60000}),
        write_img(folder / f"cube_{width}x{count}.img", as_deep(volume)),
        write_topcon(folder / "a.fda", topcon_compressed(volume)),
        write_topcon(folder / "a.fds", topcon_raw(volume.astype(np.uint16) * 257)),
    ]
    return paths


def write_images(folder):
    """Write one image in every format that holds one."""
    kinds = ("png", "jpg", "jpeg", "tiff", "bmp", "gif", "webp", "jp2")
    paths = [folder / f"b.{kind}" for kind in kinds]
    for path in paths:
        Image.fromarray(VOLUME[0]).save(path)
    np.save(folder / "b.npy", VOLUME[0])
    np.savez(folder / "b.npz", VOLUME[0])
    plain = write_dicom(folder / "IM0001", dicom(VOLUME[0]))
    return [*paths, folder / "b.npy", folder / "b.npz", plain]


def test_every_reader_is_exercised(tmp_path):
    suffixes = {path.suffix for path in (*write_volumes(tmp_path), *write_images(tmp_path))}
    assert suffixes == {*READERS, ""}


def test_volumes_need_an_index(tmp_path):
    for path in write_volumes(tmp_path):
        assert count_images(path) == 3, path
        with pytest.raises(VolumeError, match="holds 3 B-scans") as caught:
            read_image(path)
        assert f"{path.name}#1" in str(caught.value)
        with pytest.raises(InputError, match="no B-scan 3"):
            read_image(ImageAddress(path, 3))
        image = read_image(f"{path}#1")
        height = 1024 if path.suffix == ".img" else 24
        assert (image.shape, image.dtype) == ((height, 40), np.float32)
        assert 0 <= image.min() < image.max() <= 1


def test_sniffing_accepts_every_format_and_checks_the_index(tmp_path):
    for path in write_volumes(tmp_path):
        assert why_unusable(f"{path}#2") is None, path
        assert "no B-scan 3" in why_unusable(f"{path}#3")
        assert "holds 3 B-scans" in why_unusable(path)
        assert "a whole number" in why_unusable(f"{path}#two") or path.suffix == ".npz"
    for path in write_images(tmp_path):
        assert why_unusable(path) is None, path
        assert why_unusable(f"{path}#0") is None
        assert "no B-scan 1; got: index 1, and 1 image in it" in why_unusable(f"{path}#1")


def test_sniffing_finds_what_is_something_else(tmp_path):
    for path in (*write_volumes(tmp_path), *write_images(tmp_path)):
        index = "#1" if path.stem == "a" else ""
        content = path.read_bytes()
        if path.suffix not in (".img", ""):
            path.write_bytes(b"<!doctype html>" * 20)
            assert "it begins with b'<!doctyp'" in why_unusable(f"{path}{index}")
        path.write_bytes(b"")
        assert "is empty" in why_unusable(f"{path}{index}")
        if path.stem in ("a", "cube_40x3"):
            path.write_bytes(content[: len(content) // 3])
            assert str(path) in why_unusable(f"{path}{index}")
        path.unlink()
        assert "there is no file" in why_unusable(f"{path}{index}")


def test_which_files_are_images(tmp_path):
    for path in (*write_volumes(tmp_path), *write_images(tmp_path)):
        assert is_image_file(path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "README").write_text("x" * 200)
    (tmp_path / "folder.png").mkdir()
    for name in ("notes.txt", "README", "folder.png", "nowhere.png"):
        assert not is_image_file(tmp_path / name)


def test_unknown_suffix_lists_the_known_ones(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"\.xyz") as caught:
        read_image(tmp_path / "a.xyz")
    assert all(suffix in str(caught.value) for suffix in READERS)
    with pytest.raises(InputError, match="There is no image at"):
        read_image(tmp_path / "nowhere.vol#3")


def test_a_volume_is_opened_once_and_anew_when_it_changes(tmp_path):
    path = write_e2e(tmp_path / "a.e2e", {1: VOLUME.astype(np.uint16) + 60000})
    opened = open_images(path)
    assert open_images(f"{path}#2") is opened
    write_e2e(path, {1: VOLUME[:2].astype(np.uint16) + 60000})
    assert count_images(path) == 2
    before = read_image(f"{path}#0")
    write_e2e(path, {1: VOLUME[1:].astype(np.uint16) + 60000})  # of the same size
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(read_image(f"{path}#0"), before)


def test_few_volumes_are_kept_and_no_single_image(tmp_path):
    paths = []
    for number in range(REMEMBERED + 1):
        np.save(tmp_path / f"{number}.npy", VOLUME)
        paths.append(tmp_path / f"{number}.npy")
    opened = [open_images(path) for path in paths]
    assert open_images(paths[0]) is not opened[0]
    assert open_images(paths[-1]) is opened[-1]
    np.save(tmp_path / "single.npy", VOLUME[0])
    assert open_images(tmp_path / "single.npy") is not open_images(tmp_path / "single.npy")


def test_several_threads_read_one_volume(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", dicom(bscans(24)))
    expected = bscans(24) / 255
    wrong = []

    def work(offset):
        for index in range(offset, 24, 4):
            if np.abs(read_image(f"{path}#{index}") - expected[index]).max() > 1e-6:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_bscan_at_a_time_is_in_memory(tmp_path):
    volume = bscans(60, 128, 256)
    for path in write_volumes(tmp_path, volume):
        if path.suffix == ".npz":
            continue  # is unpacked as a whole
        next(iter(iter_images(path)))  # imports and tables
        tracemalloc.start()
        for image in iter_images(path):
            assert image.shape[1] == 256
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * image.nbytes, path  # of 60


def test_the_content_decides_where_a_name_does_not(tmp_path):
    picture = tmp_path / "picture"
    Image.fromarray(VOLUME[0]).save(picture, "PNG")
    for name in ("picture", "a.jfif", "a.dcm", "a.npy", "a.img", "1.2.840.1"):
        path = tmp_path / "named" / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(picture, path)
        assert_read(path, VOLUME[0] / 255)
        assert is_image_file(path)
    volume = write_vol(tmp_path / "a.vol", (VOLUME / 255).astype(np.float32) ** 4)
    assert_read(f"{volume.rename(tmp_path / 'exported')}#1", VOLUME[1] / 255)
    for start in (b"BMI,report\n", b"RIFF....AVI ", b"PK\x03\x04 a workbook"):
        (tmp_path / "other").write_bytes(start + bytes(200))
        assert not is_image_file(tmp_path / "other")


def test_what_was_saved_in_place_of_a_download_is_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    for content, word in ((pointer, "Git LFS pointer"), (b"<!DOCTYPE html><html>", "a web page")):
        (tmp_path / "a.png").write_bytes(content)
        assert word in why_unusable(tmp_path / "a.png")


def test_a_tar_alone_is_told_how_to_name_an_image_in_it(tmp_path):
    (tmp_path / "a.tar").write_bytes(bytes(512))
    with pytest.raises(InputError, match=r"a\.tar#scan\.png"):
        read_image(tmp_path / "a.tar")


def test_hidden_files_are_left_out_of_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "a.npy", VOLUME[0])
    (tmp_path / "b" / "._a.npy").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".trash").mkdir()
    np.save(tmp_path / ".trash" / "a.npy", VOLUME[0])
    write_dicom(tmp_path / "DICOMDIR", dicom(VOLUME[0]))
    assert list_image_files(tmp_path) == [tmp_path / "b" / "a.npy"]
