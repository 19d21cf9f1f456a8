"""What a file does not say and its user knows: behind an address, and for all rows of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision import ImageAddress, read_image
from retfiner.vision.images import AS_SAID, ReadAs, count_images
from retfiner.vision.images.curves import CURVES, displayed
from tests.helpers.image_files import (
    assert_read,
    assert_refused,
    bscans,
    dicom,
    e2e_value,
    topcon_raw,
    write_dicom,
    write_e2e,
    write_png,
    write_tiff,
    write_topcon,
    write_vol,
)

TWELVE = bscans(3, top=4095)


@pytest.mark.parametrize(
    ("text", "path", "index", "member", "read_as"),
    [
        ("scan.vol#12#curve=log", "scan.vol", 12, None, ReadAs(curve="log")),
        ("scan.png#bits=12", "scan.png", None, None, ReadAs(bits=12)),
        ("a.npy#2#bits=10#axis=last", "a.npy", 2, None, ReadAs(bits=10, axis="last")),
        ("a.npz#oct#2#axis=first", "a.npz", 2, "oct", ReadAs(axis="first")),
        ("a.npz#oct#axis=last", "a.npz", None, "oct", ReadAs(axis="last")),
        ("visit#2/a.png#bits=16", "visit#2/a.png", None, None, ReadAs(bits=16)),
    ],
)
def test_settings_stand_behind_an_address(text, path, index, member, read_as):
    address = ImageAddress.parse(text)
    assert address == ImageAddress(Path(path), index, member, read_as)
    assert ImageAddress.parse(str(address)) == address


def test_settings_of_a_row_win_over_those_of_all_rows():
    of_all = ReadAs.parse("bits=12, curve=log")
    assert of_all == ReadAs(12, None, "log") == ReadAs.parse("curve=log bits=12")
    assert ReadAs.parse("axis=last bits=10").over(of_all) == ReadAs(10, "last", "log")
    assert AS_SAID.over(of_all) == of_all
    assert (str(of_all), str(AS_SAID)) == ("bits=12 curve=log", "")


@pytest.mark.parametrize(
    "word", ["bits=0", "bits=17", "bits=twelve", "bits=", "axis=middle", "curve=linear"]
)
def test_settings_that_do_not_exist_are_named(tmp_path, word):
    (tmp_path / "a.npy").write_bytes(b"")
    for parse in (ReadAs.parse, lambda word: ImageAddress.parse(f"{tmp_path}/a.npy#{word}")):
        with pytest.raises(InputError, match=rf"as '{word}'[\s\S]*bits=1 to 16, axis=first"):
            parse(word)
    with pytest.raises(InputError, match="gamma=2"):
        ReadAs.parse("gamma=2")


def test_a_file_of_such_a_name_wins(tmp_path):
    Image.fromarray(bscans(1)[0]).save(tmp_path / "a#bits=12.png")
    assert_read(tmp_path / "a#bits=12.png", bscans(1)[0] / 255)


# --- curves


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (None, [0, 0.1, 0.5, 1]),
        ("fourth_root", [0, 0.1, 0.5, 1]),
        ("log", [0, 0.03924, 0.66763, 1]),
        ("root_2.4", [0, 0.02154, 0.31498, 1]),
    ],
)
def test_curves(tmp_path, curve, expected):
    """Of 0, 0.0001, 0.0625 and 1; the last of the logarithm is 1.0018, and clipped."""
    reflectivity = np.array([0, 0.0001, 0.0625, 1], np.float32)
    shown = displayed(reflectivity, curve)
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, expected, atol=1e-5)
    path = write_vol(tmp_path / "a.vol", reflectivity.reshape(1, 2, 2))
    setting = "" if curve is None else f"#curve={curve}"
    assert_read(f"{path}{setting}", np.reshape(expected, (2, 2)), atol=1e-5)


def test_one_volume_can_be_read_by_several_curves(tmp_path):
    bits = np.array([[62 << 10, 59 << 10], [50 << 10, 63 << 10]], np.uint16)
    path = write_e2e(tmp_path / "a.e2e", {1: np.stack([bits, bits])})
    value = np.where(bits >> 10 == 63, 0, e2e_value(bits))
    for _ in range(2):
        for curve in CURVES:
            assert_read(f"{path}#1#curve={curve}", displayed(value, curve))
    assert_read(f"{path}#1", value**0.25)


# --- bits


def write_unsaid(folder, values):
    """Write (N, H, W) uint16 in each format in which nothing says how many bits they use."""
    Image.fromarray(values[1]).save(folder / "a.png")
    np.save(folder / "a.npy", values)
    np.savez(folder / "a.npz", label=1, oct=values)
    yield f"{folder}/a.png"
    yield str(write_tiff(folder / "a.tif", (values[1], {})))
    yield f"{folder}/a.npy#1"
    yield f"{folder}/a.npz#oct#1"
    yield f"{write_topcon(folder / 'a.fds', topcon_raw(values))}#1"
    yield f"{write_dicom(folder / 'a.dcm', dicom(values))}#1"


def test_bits_that_values_use(tmp_path):
    for address in write_unsaid(tmp_path, TWELVE):
        assert_read(address, TWELVE[1] / 65535)
        assert_read(f"{address}#bits=12", TWELVE[1] / 4095)
        assert_refused(f"{address}#bits=10", "0 to 1,023: 10 bits", f"to {TWELVE[1].max():,}")


def test_bits_keep_how_a_dicom_image_is_shown(tmp_path):
    shown = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 2, "RescaleIntercept": 9}
    path = write_dicom(tmp_path / "a.dcm", dicom(TWELVE[0], **shown))
    assert_read(f"{path}#bits=12", 1 - TWELVE[0] / 4095)
    path = write_dicom(tmp_path / "b.dcm", dicom(TWELVE[0], RescaleSlope=-1, RescaleIntercept=0))
    assert_read(path, 1 - TWELVE[0] / 65535)
    assert_read(f"{path}#bits=12", 1 - TWELVE[0] / 4095)


def test_bits_of_one_dicom_frame_hold_for_the_next(tmp_path):
    values = np.stack([TWELVE[0], TWELVE[0] | 1 << 12])
    path = write_dicom(tmp_path / "a.dcm", dicom(values))
    for _ in range(2):
        assert_read(f"{path}#0#bits=12", TWELVE[0] / 4095)
        assert_refused(f"{path}#1#bits=12", "0 to 4,095: 12 bits", f"to {values[1].max():,}")


def test_settings_change_nothing_where_the_file_says_it(tmp_path):
    eight, window = bscans(1)[0], {"WindowCenter": 2000, "WindowWidth": 1000}
    Image.fromarray(eight).save(tmp_path / "a.png")
    write_tiff(tmp_path / "a.tif", (TWELVE[0], {258: 12}))
    write_png(tmp_path / "b.png", TWELVE[0], 12)
    write_dicom(tmp_path / "a.dcm", dicom(TWELVE[0], BitsStored=12))
    write_dicom(tmp_path / "b.dcm", dicom(TWELVE[0], **window))
    np.save(tmp_path / "a.npy", eight)
    for name in ("a.png", "a.tif", "a.dcm", "b.dcm", "a.npy"):
        plain = read_image(tmp_path / name)
        assert_read(f"{tmp_path / name}#bits=14#axis=last#curve=log", plain)
    assert_read(f"{tmp_path}/b.png#bits=13", TWELVE[0] / 8191)  # a chunk that few write rightly


# --- the axis of an array


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_the_last_axis_may_count_bscans(tmp_path, suffix):
    volume = bscans(25)
    last = np.moveaxis(volume, 0, -1)
    path = tmp_path / f"a{suffix}"
    np.save(path, last) if suffix == ".npy" else np.savez_compressed(path, last)
    assert count_images(path) == 24
    assert count_images(f"{path}#axis=last") == 25
    assert_read(f"{path}#24#axis=last", volume[24] / 255)
    assert_read(f"{path}#23#axis=first", last[23] / 255)
    assert_refused(f"{path}#24", "no B-scan 24")
    assert_refused(f"{path}#25#axis=last", "from 0 to 24")


def test_three_bscans_on_the_last_axis_are_no_colour(tmp_path):
    volume = bscans(3)
    np.save(tmp_path / "a.npy", np.moveaxis(volume, 0, -1))
    assert_read(f"{tmp_path}/a.npy#2#axis=last", volume[2] / 255)
