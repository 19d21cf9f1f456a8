"""8-bit gray values: from what, and from what not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from linprobe.prepare import pixels
from linprobe.prepare.metaimage import count_slices, read_slice
from linprobe.prepare.pixels import as_gray, npz_shapes, read_gray, read_npz_slice
from linprobe.prepare.sheets import read_csv, read_xlsx
from retfiner.common.errors import InputError
from tests.helpers.downloads import pattern, stack, write_image, write_mhd


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
    pixels._npz_array.cache_clear()
    for k in range(6):
        np.testing.assert_array_equal(
            read_npz_slice(tmp_path / "a.npz", "bscans", 0, k), pattern(k)
        )
    assert pixels._npz_array.cache_info().misses == 1
    with pytest.raises(InputError, match="no B-scan 6"):
        read_npz_slice(tmp_path / "a.npz", "bscans", 0, 6)
    with pytest.raises(InputError, match="has no oct"):
        read_npz_slice(tmp_path / "a.npz", "oct", 0, 0)


def test_of_a_raw_volume_one_bscan_is_read_and_the_rest_may_be_anything(tmp_path):
    header = write_mhd(tmp_path / "a.mhd", 40, n_bscans=9)
    assert count_slices(header) == 9
    content = header.with_suffix(".raw").read_bytes()
    size = 12 * 16
    header.with_suffix(".raw").write_bytes(
        bytes(5 * size) + content[5 * size : 6 * size] + bytes(3 * size)
    )
    np.testing.assert_array_equal(read_slice(header, 5), pattern(45))
    with pytest.raises(InputError, match="no B-scan 9"):
        read_slice(header, 9)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("DimSize = 16 12 12", "DimSize = 16 12", "does not describe a volume"),
        ("DimSize = 16 12 12", "DimSize = 16 12 0", "does not describe a volume"),
        ("a.raw", "b.raw", "no file b.raw"),
        ("ElementDataFile", "Something", "no ElementDataFile"),
    ],
)
def test_headers_that_are_damaged(tmp_path, old, new, words):
    header = write_mhd(tmp_path / "a.mhd", 0)
    header.write_text(header.read_text().replace(old, new))
    with pytest.raises(InputError, match=words):
        count_slices(header)


def test_a_csv_with_semicolons_empty_lines_and_a_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffa;b\n1; x \n\n;\n2;\n", encoding="utf-8")
    assert read_csv(path, ("a", "b"), exactly=True) == [{"a": "1", "b": "x"}, {"a": "2", "b": ""}]
    with pytest.raises(InputError, match="does not have the columns"):
        read_csv(path, ("b", "a"), exactly=True)
    assert len(read_csv(path, ("b", "a"))) == 2


def test_a_sheet_as_text(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    for row in (["n", "grade", None], [1, 1.0, None], [None, None, None], ["0002", "x ", 5]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    rows = read_xlsx(tmp_path / "a.xlsx", ("n", "grade"))
    assert [(row["n"], row["grade"]) for row in rows] == [("1", "1"), ("0002", "x")]


def test_a_missing_file_is_an_input_error(tmp_path):
    for read in (
        lambda: read_gray(tmp_path / "a.png"),
        lambda: pixels.mat_shape(tmp_path / "a.mat", "images"),
        lambda: pixels.read_mat_slice(tmp_path / "a.mat", "images", 0),
        lambda: npz_shapes(tmp_path / "a.npz"),
        lambda: read_slice(tmp_path / "a.mhd", 0),
        lambda: count_slices(tmp_path / "a.mhd"),
        lambda: read_csv(tmp_path / "a.csv", ("a",)),
        lambda: read_xlsx(tmp_path / "a.xlsx", ("a",)),
    ):
        with pytest.raises(InputError, match=r"a\.(png|mat|npz|mhd|csv|xlsx)"):
            read()


def test_identical_files_by_content_alone(tmp_path):
    from linprobe.prepare.identical import Groups, identical_files

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
        assert groups.join(first, second)
    assert not groups.join("p", "r")
    assert {groups.of(key) for key in "pqrs"} == {"p"}
    assert groups.of("t") == "t"
