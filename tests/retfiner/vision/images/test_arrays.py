"""NPY and NPZ: one image or a stack, by shape; nothing is unpickled."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.vision import count_images, iter_images, read_image
from retfiner.vision.images import open_images
from retfiner.vision.images.in_memory import as_image_list, to_grayscale
from tests.helpers.image_files import assert_read, assert_refused, bscans

EIGHT = bscans(1, 37, 53)[0]
SIXTEEN = bscans(1, 37, 53, top=65535)[0]
VOLUME = bscans(5)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (EIGHT, EIGHT / 255),
        (EIGHT[..., None], EIGHT / 255),
        (EIGHT[None, None], EIGHT / 255),
        (SIXTEEN, SIXTEEN / 65535),
        (SIXTEEN.astype(">u2"), SIXTEEN / 65535),
        (EIGHT > 9, EIGHT > 9),
        (EIGHT / 255, EIGHT / 255),
        ((EIGHT / 255).astype(np.float16), EIGHT / 255),
    ],
)
def test_arrays(tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    image = read_image(tmp_path / "a.npy")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, atol=1e-6 if array.dtype != np.float16 else 1e-3)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (EIGHT.astype(np.int32), "int32"),
        (EIGHT.astype(np.float32), "floats from 0.0 to 255.0"),
        (np.array([[0.5, np.nan]]), "nan"),
        (np.zeros((9, 4, 4, 2), np.uint8), r"\(9, 4, 4, 2\)"),
        (np.zeros(7, np.uint8), r"\(7,\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
        (np.array([{"a": 1}], dtype=object), "unpickled"),
    ],
)
def test_arrays_that_cannot_be_images(tmp_path, array, found):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=found) as caught:
        read_image(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(caught.value)


@pytest.mark.parametrize("array", [VOLUME[:, None], VOLUME[None], VOLUME[None, ..., None]])
def test_axes_of_length_one_say_nothing(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        assert_read(f"{tmp_path / name}#3", VOLUME[3] / 255)
    assert len(as_image_list(array)) == 5
    assert np.array_equal(to_grayscale(EIGHT[None, None]), to_grayscale(EIGHT))


def test_colour_arrays_become_luma(tmp_path):
    rgba = np.random.default_rng(1).integers(0, 256, (6, 5, 7, 4), dtype=np.uint8)
    luma = rgba[..., :3] @ np.array([0.299, 0.587, 0.114]) / 255
    np.save(tmp_path / "rgb.npy", rgba[0, ..., :3])
    np.testing.assert_allclose(read_image(tmp_path / "rgb.npy"), luma[0], atol=1e-6)
    np.save(tmp_path / "stack.npy", rgba)
    np.testing.assert_allclose(read_image(f"{tmp_path}/stack.npy#4"), luma[4], atol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_stacks(tmp_path, suffix, order):
    path = tmp_path / f"volume{suffix}"
    if suffix == ".npy":
        np.save(path, np.asarray(VOLUME, order=order))
    else:
        np.savez_compressed(path, scan=np.asarray(VOLUME, order=order))
    assert count_images(path) == 5
    np.testing.assert_allclose(read_image(f"{path}#3"), VOLUME[3] / 255, atol=1e-7)
    np.testing.assert_allclose(np.stack(list(iter_images(path))), VOLUME / 255, atol=1e-7)
    with pytest.raises(InputError, match=r"no B-scan 5\n.*index 5, and 5 images.*\n.*0 to 4"):
        read_image(f"{path}#5")


def test_a_single_bscan_in_a_stack_needs_no_index(tmp_path):
    np.save(tmp_path / "a.npy", VOLUME[:1])
    np.testing.assert_allclose(read_image(tmp_path / "a.npy"), VOLUME[0] / 255, atol=1e-7)


def test_labels_beside_the_scan_are_passed_over(tmp_path):
    np.savez(tmp_path / "a.npz", bscans=VOLUME, glaucoma=1, tds=np.zeros(52), name=np.array("x"))
    np.testing.assert_allclose(read_image(f"{tmp_path}/a.npz#1"), VOLUME[1] / 255, atol=1e-7)


def test_one_of_several_arrays_is_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, slo=EIGHT, oct=VOLUME, age=70)
    with pytest.raises(InputError, match=r"2 arrays that could be images: slo, oct") as caught:
        read_image(path)
    assert "a.npz#slo" in str(caught.value)
    np.testing.assert_allclose(read_image(f"{path}#slo"), EIGHT / 255, atol=1e-7)
    np.testing.assert_allclose(read_image(f"{path}#oct#4"), VOLUME[4] / 255, atol=1e-7)
    assert count_images(f"{path}#oct") == 5
    with pytest.raises(InputError, match=r"no array flo\n.*one of slo, oct, age"):
        read_image(f"{path}#flo")
    with pytest.raises(InputError, match=r"shape \(\)"):
        read_image(f"{path}#age")


def test_pickled_members_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", scan=np.array([[{"a": 1}]], dtype=object))
    with pytest.raises(InputError, match="unpickled"):
        read_image(tmp_path / "a.npz")


def test_a_header_that_claims_too_much_is_refused_before_anything_is_unpacked(tmp_path):
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**3)}
    np.lib.format.write_array_header_1_0(header, about)
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("scan.npy", header.getvalue())
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=r"1000000 images of 10000 x 1000 .*\n.*at most"):
            count_images(tmp_path / name)


def test_broken_arrays_name_the_path(tmp_path):
    np.save(tmp_path / "whole.npy", EIGHT)
    data = (tmp_path / "whole.npy").read_bytes()
    np.savez(tmp_path / "whole.npz", a=EIGHT)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    (tmp_path / "short.npy").write_bytes(data[:-20])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-30])
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04" + data)
    for name in ("cut.npy", "short.npy", "empty.npy", "cut.npz", "no.npz", "absent.npy"):
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (EIGHT.astype(np.int16), "values.astype('uint8') if they are from 0 to 255"),
        (EIGHT.astype(np.int64), "values.astype('uint8') if they are from 0 to 255"),
        (EIGHT.astype(np.uint32), "values.astype('uint8') if they are from 0 to 255"),
        (EIGHT.astype(complex), "scale them to [0, 1]"),
        (EIGHT.astype(np.float32), "divide by 255 if that is white"),
        (SIXTEEN.astype(float), "divide by what is white"),
        (EIGHT / 255 - 0.05, "save values.clip(0, 1)"),
        (np.where(EIGHT > 99, np.nan, 0.5), "np.nan_to_num"),
        (EIGHT / 255 - 0.5, "not by each image's own maximum"),
        (np.stack([EIGHT] * 3), "3 planes of 37 x 53, three of them the same: colour channels"),
        (np.stack([EIGHT] * 3 + [255 - EIGHT]), "save values[0]"),
        (np.stack([VOLUME] * 3, 1), "save np.moveaxis(values, 1, -1): colour comes last"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_the_check_before_training_knows_the_remedy(tmp_path, array, found, suffix):
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    index = "#1" if array.ndim > 2 else ""
    assert_refused(f"{path}{index}", found)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_were_rounded_are_taken_for_0_and_1(tmp_path, dtype):
    step = np.finfo(dtype).eps
    values = np.array([[1 + 2 * step, 1], [-step, 0.5]], dtype)
    np.save(tmp_path / "a.npy", values)
    assert_read(tmp_path / "a.npy", np.array([[1, 1], [0, 0.5]]))
    assert read_image(tmp_path / "a.npy").max() == 1
    np.save(tmp_path / "b.npy", np.array([[1.01, 1]], dtype))
    assert_refused(tmp_path / "b.npy", "values.clip(0, 1)")


def test_planes_that_are_the_same_can_be_bscans(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([EIGHT] * 3))
    assert_refused(f"{tmp_path}/a.npy", "#axis=first")
    assert_read(f"{tmp_path}/a.npy#1#axis=first", EIGHT / 255)


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        ((24, 40, 25), "first axis of an array taken for B-scans, and the last may be meant"),
        ((24, 40, 3), "last axis taken for red, green and blue"),
        ((25, 24, 40), None),
        ((200, 200, 200), "first axis of an array taken for B-scans, and the last may be meant"),
        ((60, 25, 80), "first axis of an array taken for B-scans, and the middle one may be meant"),
        ((3, 24, 40), None),
        ((24, 40), None),
        ((24, 40, 1), None),
        ((5, 24, 40, 3), None),
    ],
)
def test_axes_that_may_be_meant_otherwise_are_noted(tmp_path, shape, note):
    values = np.zeros(shape, np.uint8)
    values[0], values[-1] = 1, 2
    values[..., 0] = 3
    np.save(tmp_path / "a.npy", values)
    opened = open_images(tmp_path / "a.npy")
    assert [found.kind for found in opened.notes] == ([] if note is None else [note])
    for found in opened.notes:
        assert str(shape) in found.detail
        assert "axis=last" in found.detail or "np.moveaxis(values, 1, 0)" in found.detail
        assert not open_images(f"{tmp_path}/a.npy#axis=last").notes


def test_words_beside_a_scan_are_no_image(tmp_path):
    names, objects = np.array([["left", "OD"]]), np.array([["x", None]], dtype=object)
    np.savez(tmp_path / "a.npz", names=names, objects=objects, oct=VOLUME)
    assert_read(f"{tmp_path}/a.npz#2", VOLUME[2] / 255)
    np.savez(tmp_path / "b.npz", names=names)
    assert_refused(tmp_path / "b.npz", "dtype <U4")


def test_gray_saved_as_colour_needs_no_note(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([EIGHT] * 3, -1))
    assert not open_images(tmp_path / "a.npy").notes
    assert_read(tmp_path / "a.npy", EIGHT / 255)
