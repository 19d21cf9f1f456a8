"""Files of Heidelberg, Zeiss and Topcon, written byte by byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.vision import count_images, iter_images, read_image
from retfiner.vision.images import why_unusable
from tests.helpers.image_files import (
    NO_DATA_VOL,
    bscans,
    e2e_value,
    topcon_chunk,
    topcon_compressed,
    topcon_raw,
    write_e2e,
    write_img,
    write_topcon,
    write_vol,
)

EIGHT = bscans(4)
CUBE = bscans(4, 1024)
SIXTEEN = bscans(4, top=65535)


def all_of(path):
    return np.stack(list(iter_images(path)))


# --- Heidelberg .vol


def reflectivity(count=4):
    values = (bscans(count, top=65535) / 65535).astype(np.float32) ** 4
    values[1, :3] = NO_DATA_VOL
    values[-1, 0, 0] = np.nan
    return values


@pytest.mark.parametrize("bscan_header", [512, 1536])
def test_vol_is_shown_by_its_fourth_root(tmp_path, bscan_header):
    values = reflectivity()
    path = write_vol(tmp_path / "a.vol", values, bscan_header)
    expected = bscans(4, top=65535) / 65535
    expected[1, :3] = expected[3, 0, 0] = 0
    assert count_images(path) == 4
    np.testing.assert_allclose(all_of(path), expected, atol=1e-6)
    image = read_image(f"{path}#3")
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected[3], atol=1e-6)


def test_a_line_scan_in_a_vol_needs_no_index(tmp_path):
    path = write_vol(tmp_path / "a.vol", reflectivity(2)[:1])
    np.testing.assert_allclose(read_image(path), bscans(2, top=65535)[0] / 65535, atol=1e-6)


def test_damaged_vol(tmp_path):
    path = write_vol(tmp_path / "a.vol", reflectivity())
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="the file is cut"):
        read_image(f"{path}#0")
    path.write_bytes(b"RIFF" + content[4:])
    with pytest.raises(InputError, match="begins with b'RIFF"):
        read_image(f"{path}#0")
    path.write_bytes(content[:16] + struct.pack("<i", 2**30) + content[20:])
    with pytest.raises(InputError, match=r"1073741824 images .*\n.*at most"):
        read_image(f"{path}#0")


@pytest.mark.parametrize("said", [512, 61_440, 700])
@pytest.mark.parametrize("own", [2_976, 900])
def test_each_bscan_of_a_vol_says_the_size_of_its_own_header(tmp_path, said, own):
    """The file's header says another one, as files of eyepy's writer do."""
    values = reflectivity()
    path = write_vol(tmp_path / "a.vol", values, own, said)
    expected = bscans(4, top=65535) / 65535
    expected[1, :3] = expected[3, 0, 0] = 0
    np.testing.assert_allclose(all_of(path), expected, atol=1e-6)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{said:,} of them by the file's header, and {own:,} by"):
        count_images(path)


@pytest.mark.parametrize("own", [0, -1, 256, 2**31 - 1])
def test_the_size_that_fits_the_file_wins(tmp_path, own):
    path = write_vol(tmp_path / "a.vol", reflectivity(), 512)
    content = bytearray(path.read_bytes())
    for index in range(4):
        struct.pack_into("<i", content, 2048 + 360 + index * (512 + 4 * 960) + 12, own)
    path.write_bytes(content)
    expected = bscans(4, top=65535) / 65535
    np.testing.assert_allclose(read_image(f"{path}#2"), expected[2], atol=1e-6)


def test_a_line_scan_that_is_cut_is_not_read_by_the_wrong_size(tmp_path):
    """It is longer than the file's header, which says too little, would have it."""
    path = write_vol(tmp_path / "a.vol", reflectivity(2)[:1], 900, 512)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="900 by the first B-scan's"):
        count_images(path)


# --- Heidelberg .e2e


def e2e_volume(count, seed):
    return np.random.default_rng(seed).integers(0, 63 << 10, (count, 8, 9)).astype(np.uint16)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("prefix", [b"", b"E2EMultipleVolumeFile".ljust(64, b"\0")])
def test_e2e_holds_its_series_one_after_the_other(tmp_path, shuffled, prefix):
    series = {7: e2e_volume(12, 1), 3: e2e_volume(2, 2)}
    path = write_e2e(tmp_path / "a.E2E", series, shuffled)
    path.write_bytes(prefix + path.read_bytes())
    expected = e2e_value(np.concatenate([series[3], series[7]])) ** 0.25
    assert count_images(path) == 14
    # Values with exponent 0 lack the leading one; as shown, both are below 1e-4.
    np.testing.assert_allclose(all_of(path), expected, atol=1e-4)
    np.testing.assert_allclose(read_image(f"{path}#2"), expected[2], atol=1e-4)


def test_e2e_values_by_hand(tmp_path):
    bits = np.array(
        [[62 << 10, 61 << 10 | 512, 59 << 10, 0], [63 << 10, 0xFFFF, 1, 62 << 10 | 1023]]
    )
    path = write_e2e(tmp_path / "a.e2e", {1: bits[None].astype(np.uint16)})
    reflectivity = np.array([[0.5, 0.375, 0.0625, 0], [0, 0, 2.0**-72, 2047 / 2048]])
    np.testing.assert_allclose(read_image(path), reflectivity**0.25, rtol=1e-6)


def test_a_chain_of_directories_is_followed_and_the_newest_wins(tmp_path):
    """HEYEX appends a directory when it rewrites a B-scan; the old one stays in the file."""
    old, new = e2e_volume(2, 1), e2e_volume(3, 2)
    path = write_e2e(tmp_path / "a.e2e", {1: old})
    first = path.read_bytes()
    second = write_e2e(tmp_path / "b.e2e", {1: new}).read_bytes()[88:]
    shift, count = len(first) - 88, 4
    appended = bytearray(second)
    struct.pack_into("<I", appended, 44, 88)  # the directory before it
    for entry in range(count):
        place = 52 + 44 * entry + 4
        (start,) = struct.unpack_from("<I", appended, place)
        struct.pack_into("<I", appended, place, start + shift)
    joined = bytearray(first + appended)
    struct.pack_into("<I", joined, 36 + 40, len(first))
    path.write_bytes(joined)
    np.testing.assert_allclose(all_of(path), e2e_value(new) ** 0.25, atol=1e-4)
    struct.pack_into("<I", joined, 88 + 44, len(first))  # now each points to the other
    path.write_bytes(joined)
    with pytest.raises(InputError, match="do not end"):
        count_images(path)


def test_damaged_e2e(tmp_path):
    path = write_e2e(tmp_path / "a.e2e", {1: e2e_volume(3, 1)})
    content = path.read_bytes()
    for cut, message in (
        (-100, "cut"),
        (400, ""),
        (160, "cut[\\s\\S]*its list of contents, 4 entries"),
        (40, ""),
    ):
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=rf"{path}[\s\S]*{message}"):
            count_images(path)
    path.write_bytes(b"PK\3\4" + content)
    with pytest.raises(InputError, match="begins with b'PK"):
        count_images(path)
    with pytest.raises(InputError, match="no OCT B-scan"):
        count_images(write_e2e(tmp_path / "b.e2e", {1: np.zeros((0, 3, 3), np.uint16)}))


@pytest.mark.parametrize(("cut", "missing"), [(1, "3"), (500, "1, 2, 3")])
def test_a_cut_e2e_says_which_bscans_are_missing(tmp_path, cut, missing):
    path = write_e2e(tmp_path / "a.e2e", {1: e2e_volume(4, 1)})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match=rf"of 4 B-scans [\s\S]*: {missing}\n.*\n.*export it anew"):
        count_images(path)
    assert missing in why_unusable(f"{path}#0")


def test_an_e2e_without_its_directory(tmp_path):
    path = write_e2e(tmp_path / "a.e2e", {1: e2e_volume(4, 1)})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 36 + 36 + 4, 414_829_212)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"the file is cut\n.*its list of contents\n.*anew"):
        count_images(path)
    struct.pack_into("<I", content, 36 + 36 + 4, 100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="no list of contents at byte 100"):
        count_images(path)


# --- Zeiss .img


@pytest.mark.parametrize(
    "name",
    [
        "P1_Macular Cube 40x4_1-25-2011_10-51-44_OD_sn7564_cube_z.img",
        "P1_Optic Disc Cube 40x4_11-25-2011_10-51-44_OS_sn7564_cube_raw.img",
        "scan_40x4.img",
        "12x12 mm, 40 X 4.img",
    ],
)
def test_img_stands_upright(tmp_path, name):
    path = write_img(tmp_path / name, CUBE)
    assert count_images(path) == 4
    np.testing.assert_allclose(all_of(path), CUBE / 255, atol=1e-7)
    np.testing.assert_allclose(read_image(f"{path}#1"), CUBE[1] / 255, atol=1e-7)


def test_img_without_a_size_in_its_name(tmp_path):
    path = tmp_path / "renamed.img"
    with path.open("wb") as file:
        file.truncate(200 * 1024 * 200)
    assert count_images(path) == 200
    assert read_image(f"{path}#199").shape == (1024, 200)
    path.write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"1,000 bytes[\s\S]*no whole number of A-scans"):
        count_images(path)
    with path.open("wb") as file:
        file.truncate(1024 * 1024 * 5)
    with pytest.raises(InputError, match=r"renamed_1024x5\.img or renamed_512x10\.img, whichever"):
        count_images(path)


def test_img_whose_size_contradicts_its_name(tmp_path):
    path = write_img(tmp_path / "cube_41x4.img", CUBE)
    with pytest.raises(InputError, match=r"163,840 bytes\n.*4 B-scans of 41 A-scans"):
        count_images(path)
    path = write_img(tmp_path / "P1_Macular Cube 40x4_OD_sn1_hidef.img", CUBE)
    with pytest.raises(InputError, match="high-definition raster"):
        count_images(path)


@pytest.mark.parametrize(
    ("size", "found"),
    [
        (512 * 1024 * 128 - 65_536, "cut"),  # 512 x 1023 x 128
        (512 * 1024 * 128 // 2, "cut"),
        (512 * 1024 * 128 + 65_536, "correct the size"),
        (200 * 1024 * 200, "the size of a cube of 200x200"),
    ],
)
def test_an_img_of_another_size_is_never_read_shifted(tmp_path, size, found):
    """Each of these divides by 512 x 128, so that a depth could be found."""
    path = tmp_path / "P1_Macular Cube 512x128_OD_cube_z.img"
    with path.open("wb") as file:
        file.truncate(size)
    with pytest.raises(InputError, match=rf"{size:,} bytes[\s\S]*67,108,864 bytes") as caught:
        count_images(path)
    assert found in str(caught.value)
    assert found in why_unusable(f"{path}#3")


# --- Topcon .fda and .fds


def test_fda_shows_the_compressed_bscans(tmp_path):
    """Those are what the device shows, so they win over raw values beside them."""
    path = write_topcon(
        tmp_path / "a.fda", topcon_raw(SIXTEEN, "@IMG_MOT_COMP_03"), topcon_compressed(EIGHT)
    )
    assert count_images(path) == 4
    np.testing.assert_allclose(all_of(path), EIGHT / 255, atol=1e-7)
    np.testing.assert_allclose(read_image(f"{path}#2"), EIGHT[2] / 255, atol=1e-7)


@pytest.mark.parametrize("name", ["@IMG_SCAN_03", "@IMG_MOT_COMP_03"])
@pytest.mark.parametrize("suffix", [".fds", ".fda"])
def test_raw_values_of_topcon_are_scaled_by_their_bits(tmp_path, name, suffix):
    path = write_topcon(tmp_path / f"a{suffix}", topcon_raw(SIXTEEN // 4, name))
    np.testing.assert_allclose(all_of(path), (SIXTEEN // 4) / 65535, atol=1e-7)
    assert all_of(path).max() < 0.26


@pytest.mark.parametrize("name", ["@IMG_SCAN_03", "@IMG_MOT_COMP_03"])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("after", [b"", bytes(range(60))])
def test_the_header_of_raw_values_is_known_by_the_size_it_names(tmp_path, name, positions, after):
    chunk = topcon_raw(SIXTEEN, name, positions=positions, after=after)
    path = write_topcon(tmp_path / "a.fds", chunk)
    np.testing.assert_allclose(all_of(path), SIXTEEN / 65535, atol=1e-7)


@pytest.mark.parametrize("positions", [False, True])
def test_raw_values_of_another_size_than_named_are_refused(tmp_path, positions):
    chunk = topcon_raw(SIXTEEN, said=SIXTEEN.nbytes - 2, positions=positions)
    with pytest.raises(InputError, match=r"says 7,678 of them[\s\S]*7,680 by the size"):
        count_images(write_topcon(tmp_path / "a.fds", chunk))
    silent = topcon_raw(SIXTEEN, said=0, positions=positions)  # then the chunk's length tells
    path = write_topcon(tmp_path / "b.fds", silent)
    np.testing.assert_allclose(read_image(f"{path}#3"), SIXTEEN[3] / 65535, atol=1e-7)


def test_damaged_topcon(tmp_path):
    path = write_topcon(tmp_path / "a.fda", topcon_compressed(EIGHT))
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    with pytest.raises(InputError, match="the file is cut"):
        count_images(path)
    path.write_bytes(content.replace(b"FOCT", b"JUNK"))
    with pytest.raises(InputError, match="begins with b'JUNKFDA'"):
        count_images(path)
    middle = content.index(b"\xff\x4f\xff\x51")
    path.write_bytes(content[:middle] + bytes(40) + content[middle + 40 :])
    with pytest.raises(InputError, match=r"a\.fda cannot be used"):
        read_image(f"{path}#0")
    with pytest.raises(InputError, match=r"chunks @CAPTURE_INFO_02\n.*@IMG_JPEG"):
        count_images(write_topcon(tmp_path / "b.fda"))
    with pytest.raises(InputError, match="12 bits a pixel"):
        count_images(write_topcon(tmp_path / "c.fds", topcon_raw(SIXTEEN, bits=12)))
    short = topcon_raw(SIXTEEN)
    short = topcon_chunk("@IMG_SCAN_03", short[len("@IMG_SCAN_03") + 5 : -2])
    with pytest.raises(InputError, match=r"a chunk of 7,700 bytes,[\s\S]*7,680 by the size"):
        count_images(write_topcon(tmp_path / "d.fds", short))
    with pytest.raises(InputError, match="the file is cut"):  # within a chunk's head
        path.write_bytes(content[:-1] + b"\x0f@IM")
        count_images(path)
