"""8-bit gray values: from what, and from what not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from linprobe.prepare import volumes
from linprobe.prepare.tables import read_table
from linprobe.prepare.volumes import (
    as_gray,
    mat_shape,
    npz_shapes,
    read_gray,
    read_mhd_slice,
    read_slice,
)
from retfiner.common.errors import InputError
from tests.helpers.downloads import pattern, stack, write_mhd


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp"])
def test_8_bit_images_are_read_exactly(tmp_path, suffix):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(every).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_gray(tmp_path / f"a.{suffix}"), every)
    rgb = np.repeat(every[..., None], 3, axis=2)
    Image.fromarray(rgb).save(tmp_path / f"b.{suffix}")
    np.testing.assert_array_equal(read_gray(tmp_path / f"b.{suffix}"), every)


def test_16_bits_are_scaled_by_their_depth(tmp_path):
    values = (pattern(3).astype(np.uint16) * 257).clip(0, 65535)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "a.png"), pattern(3))
    Image.fromarray(values + np.uint16(200) * (values < 60000)).save(tmp_path / "b.png")
    rounded = pattern(3) + (values < 60000)  # 200 of 65,535 are 0.78 of 255
    np.testing.assert_array_equal(read_gray(tmp_path / "b.png"), rounded)


def test_a_tiff_of_several_pages_is_refused(tmp_path):
    pages = [Image.fromarray(pattern(k)) for k in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"a\.tif holds 3 B-scans"):
        read_gray(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint16, np.float32, np.float64])
def test_whole_numbers_are_gray_values_whatever_their_type(dtype):
    values = pattern(0) % 100
    result = as_gray(values.astype(dtype), "x")
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, values)


def test_floats_up_to_one_are_scaled():
    values = pattern(0) / np.float64(255)
    np.testing.assert_array_equal(as_gray(values, "x"), pattern(0))


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.0, 255.5]]),
        np.array([[0, 256]]),
        np.array([[-1, 3]]),
        np.array([[0.0, np.inf]]),
        np.array([["a", "b"]]),
        np.array([[1 + 2j]]),
        np.zeros((0, 4)),
    ],
)
def test_other_values_are_refused_by_name(values):
    with pytest.raises(InputError, match=r"file\.mat, B-scan 3: values"):
        as_gray(values, "file.mat, B-scan 3")


def test_an_archive_is_unpacked_once_for_all_its_bscans(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", bscans=stack(range(6), 0), age=np.array(3))
    assert npz_shapes(tmp_path / "a.npz") == {"bscans": (6, 12, 16), "age": ()}
    volumes.read_array.cache_clear()
    for k in range(6):
        np.testing.assert_array_equal(read_slice(tmp_path / "a.npz", "bscans", 0, k), pattern(k))
    assert volumes.read_array.cache_info().misses == 1
    with pytest.raises(InputError, match="no intact NumPy archive"):
        read_slice(tmp_path / "a.npz", "bscans", 0, 6)
    with pytest.raises(InputError, match="oct is not"):
        read_slice(tmp_path / "a.npz", "oct", 0, 0)


def test_of_a_raw_volume_one_bscan_is_read_and_the_rest_may_be_anything(tmp_path):
    header = write_mhd(tmp_path / "a.mhd", 40, n_bscans=9)
    content = header.with_suffix(".raw").read_bytes()
    size = 12 * 16
    header.with_suffix(".raw").write_bytes(
        bytes(5 * size) + content[5 * size : 6 * size] + bytes(3 * size)
    )
    np.testing.assert_array_equal(read_mhd_slice(header, 5), pattern(45))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("DimSize = 16 12 12", "DimSize = 16 12", "does not describe a volume"),
        ("DimSize = 16 12 12", "DimSize = 16 12 9", "is not intact"),
        ("a.raw", "b.raw", "no file b.raw"),
        ("ElementDataFile", "Something", "does not describe a volume"),
    ],
)
def test_headers_that_are_damaged(tmp_path, old, new, words):
    header = write_mhd(tmp_path / "a.mhd", 0)
    header.write_text(header.read_text().replace(old, new))
    with pytest.raises(InputError, match=words):
        read_mhd_slice(header, 0)


def test_a_missing_file_is_an_input_error(tmp_path):
    for read in (
        lambda: read_gray(tmp_path / "a.png"),
        lambda: mat_shape(tmp_path / "a.mat", "images"),
        lambda: read_slice(tmp_path / "a.mat", "images", 2, 0),
        lambda: npz_shapes(tmp_path / "a.npz"),
        lambda: read_mhd_slice(tmp_path / "a.mhd", 0),
        lambda: read_table(tmp_path / "a.csv", ("a",)),
        lambda: read_table(tmp_path / "a.xlsx", ("a",)),
    ):
        with pytest.raises(InputError, match=r"a\.(png|mat|npz|mhd|csv|xlsx)"):
            read()
