"""PNG, JPEG, TIFF and BMP as Pillow writes them, and TIFF stacks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision import count_images, iter_images, read_image
from retfiner.vision.images import VolumeError, open_images
from tests.helpers.image_files import assert_read, assert_refused, bscans, write_png, write_tiff

EIGHT = bscans(1, 37, 53)[0]
SIXTEEN = bscans(1, 37, 53, top=65535)[0]
TWELVE = bscans(1, top=4095)[0]
UNEVEN = bscans(1)[0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_eight_bits(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(EIGHT).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((37, 53), np.float32)
    np.testing.assert_allclose(image, EIGHT / 255, rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(SIXTEEN).save(path)
    np.testing.assert_allclose(read_image(path), SIXTEEN / 65535, rtol=0, atol=1e-7)
    big_endian = Image.frombytes("I;16B", (53, 37), SIXTEEN.astype(">u2").tobytes())
    big_endian.save(tmp_path / "b.tif")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif"), SIXTEEN / 65535, rtol=0, atol=1e-7)


def test_jpeg_within_its_loss(tmp_path):
    for suffix in (".jpg", ".jpeg"):
        Image.fromarray(EIGHT).save(tmp_path / f"a{suffix}", quality=95)
        assert np.abs(read_image(tmp_path / f"a{suffix}") - EIGHT / 255).mean() < 0.02


@pytest.mark.parametrize("dark", [EIGHT // 4, SIXTEEN // 4])
def test_dark_image_stays_dark(tmp_path, dark):
    """Scaled by bit depth, not by the image's own maximum."""
    Image.fromarray(dark).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.max() == pytest.approx(dark.max() / np.iinfo(dark.dtype).max)
    assert image.max() < 0.26


def test_colour_becomes_luma_and_alpha_is_dropped(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    luma = rgb @ np.array([0.299, 0.587, 0.114]) / 255
    alpha = np.random.default_rng(2).integers(0, 256, (5, 7, 1), dtype=np.uint8)
    gray = EIGHT[:5, :7]
    files = {
        "rgb.png": (rgb, luma),
        "rgba.png": (np.concatenate([rgb, alpha], axis=2), luma),
        "la.png": (np.concatenate([gray[..., None], alpha], axis=2), gray / 255),
        "gray_rgb.png": (np.repeat(gray[..., None], 3, axis=2), gray / 255),
        "rgb.bmp": (rgb, luma),
        "rgb.tif": (rgb, luma),
    }
    for name, (pixels, expected) in files.items():
        Image.fromarray(pixels).save(tmp_path / name)
        np.testing.assert_allclose(read_image(tmp_path / name), expected, atol=0.51 / 255)
    for name in ("rgb", "rgba"):
        np.save(tmp_path / f"{name}.npy", files[f"{name}.png"][0])
        np.testing.assert_allclose(read_image(tmp_path / f"{name}.npy"), luma, atol=1e-6)


def test_palette_and_bilevel(tmp_path):
    indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    indices.putpalette([10, 10, 10, 250, 250, 250, 255, 0, 0])
    indices.save(tmp_path / "p.png")
    expected = np.array([[10, 250], [0.299 * 255, 250]]) / 255
    np.testing.assert_allclose(read_image(tmp_path / "p.png"), expected, atol=0.51 / 255)
    Image.fromarray(EIGHT > 127).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), (EIGHT > 127).astype(np.float32))


def test_floating_point_tiff(tmp_path):
    Image.fromarray((EIGHT / 255).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), EIGHT / 255, atol=1e-7)
    Image.fromarray(EIGHT.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match="floats from"):
        read_image(tmp_path / "b.tif")
    Image.fromarray(EIGHT.astype(np.int32) * 2**20).save(tmp_path / "c.tif")
    with pytest.raises(InputError, match="32-bit"):
        read_image(tmp_path / "c.tif")


def write_stack(path, volume):
    pages = [Image.fromarray(bscan) for bscan in volume]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


@pytest.mark.parametrize("top", [255, 65535])
def test_every_page_of_a_tiff_is_a_bscan(tmp_path, top):
    volume = bscans(4, top=top)
    path = write_stack(tmp_path / "volume.tif", volume)
    assert count_images(path) == 4
    np.testing.assert_allclose(read_image(f"{path}#2"), volume[2] / top, atol=1e-7)
    np.testing.assert_allclose(np.stack(list(iter_images(path))), volume / top, atol=1e-7)


def test_stack_of_bscans_is_not_cut_to_its_first(tmp_path):
    path = write_stack(tmp_path / "volume.tif", bscans(2))
    with pytest.raises(VolumeError, match=r"holds 2 B-scans.*\n.*\n.*0 to 1\n.*volume\.tif#1"):
        read_image(path)


def test_broken_files_name_the_path(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("cut.png", "empty.png", "text.jpg", "absent.png"):
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    """With Pillow's own limit, lowered; above twice its value Pillow raises instead of warning."""
    Image.fromarray(EIGHT).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", EIGHT.size // 2 - 1)
    with pytest.raises(InputError, match="decompression bomb"):
        read_image(tmp_path / "a.png")


# --- what a PNG says of its depth


@pytest.mark.parametrize(
    ("values", "significant", "expected"),
    [
        (TWELVE, 12, TWELVE / 4095),  # at the lower end, as many writers leave them
        (TWELVE << 4, 12, (TWELVE << 4) / 65535),  # at the upper end, as the standard wants them
        (TWELVE << 4 | TWELVE >> 8, 12, (TWELVE << 4 | TWELVE >> 8) / 65535),  # and filled up there
        (TWELVE // 64 << 4, 12, (TWELVE // 64 << 4) / 65535),  # dark ones stay dark
        (TWELVE // 4, 10, TWELVE // 4 / 1023),
        (SIXTEEN, 12, SIXTEEN / 65535),  # it says too little
        (SIXTEEN, 16, SIXTEEN / 65535),
    ],
)
def test_significant_bits_of_a_png(tmp_path, values, significant, expected):
    path = write_png(tmp_path / "a.png", values.astype(np.uint16), significant)
    assert_read(path, expected)


# --- what a TIFF says of its values


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        (TWELVE, {258: 12}, TWELVE / 4095),
        (TWELVE, {258: 12, 262: 0}, 1 - TWELVE / 4095),
        (SIXTEEN, {}, SIXTEEN / 65535),
        (SIXTEEN, {262: 0}, 1 - SIXTEEN / 65535),
        (EIGHT, {262: 0}, 1 - EIGHT / 255),
        ((SIXTEEN // 2).astype(np.int16), {}, SIXTEEN // 2 / 32767),
        ((SIXTEEN // 2).astype(np.int16), {262: 0}, 1 - SIXTEEN // 2 / 32767),
        ((EIGHT // 2).astype(np.int8), {}, EIGHT // 2 / 127),
        ((EIGHT / 255).astype(np.float32), {262: 0}, 1 - EIGHT / 255),
        (TWELVE, {281: 4095}, TWELVE / 4095),
        (TWELVE, {281: 4000}, TWELVE / 65535),  # the brightest of this image, and no depth
        (SIXTEEN, {281: 4095}, SIXTEEN / 65535),  # it is wrong
        (TWELVE, {270: '<OME><Pixels SignificantBits="12"/></OME>'}, TWELVE / 4095),
        (TWELVE // 4, {270: 'SignificantBits="10"'}, TWELVE // 4 / 1023),
    ],
)
def test_depth_sign_and_white_of_a_tiff(tmp_path, values, tags, expected, order):
    kind = values.dtype.kind
    if order == ">" and (kind == "f" or values.dtype == np.int8) and 262 in tags:
        pytest.skip("no layout that Pillow knows")
    assert_read(write_tiff(tmp_path / "a.tif", (values, tags), order=order), expected)


@pytest.mark.parametrize(
    ("values", "tags", "found"),
    [
        ((SIXTEEN.astype(int) - 32768).astype(np.int16), {}, "values from -32,768 to 32,767"),
        ((EIGHT.astype(int) - 128).astype(np.int8), {}, "values from -128 to 127"),
        (EIGHT.astype(np.uint32), {}, "32-bit integers"),
        (EIGHT.astype(np.int32), {}, "32-bit integers"),
        (EIGHT.astype(np.float32), {}, "divide by 255"),
        (EIGHT.astype(np.float64), {}, "a TIFF of 64 bits (floats)"),
        (TWELVE, {258: 14}, "a TIFF of 14 bits (integers)"),
    ],
)
def test_values_of_a_tiff_that_cannot_be_scaled(tmp_path, values, tags, found):
    assert_refused(write_tiff(tmp_path / "a.tif", (values, tags)), found)


def test_a_cut_tiff_or_bitmap_is_known_by_its_size(tmp_path):
    path = write_tiff(tmp_path / "a.tif", (TWELVE, {}), (TWELVE, {}))
    path.write_bytes(path.read_bytes()[:-300])
    assert_refused(f"{path}#0", "the file is cut")
    Image.fromarray(EIGHT).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:-1])
    assert_refused(tmp_path / "a.bmp", "the file is cut")


SMALL = UNEVEN[::2, ::2]


@pytest.mark.parametrize(
    "pages",
    [
        [(SMALL, {}), 0, 1, 2],  # the size alone tells
        [0, (SMALL, {254: 1}), 1, 2],
        [0, (SMALL, {255: 2}), 1, 2],
        [0, (UNEVEN, {254: 4}), 1, (UNEVEN[:5], {254: 1}), 2],  # a mask, and one of other sides
    ],
)
def test_previews_and_masks_are_no_bscans_of_a_tiff(tmp_path, pages):
    volume = bscans(3)
    written = [(volume[page], {}) if isinstance(page, int) else page for page in pages]
    path = write_tiff(tmp_path / "a.tif", *written)
    assert count_images(path) == 3
    for index in range(3):
        assert_read(f"{path}#{index}", volume[index] / 255)
    np.testing.assert_allclose(np.stack(list(iter_images(path))), volume / 255, atol=1e-6)
    left_out = len(pages) - 3
    [note] = open_images(path).notes
    assert note == (
        "TIFF with previews or masks, which are left out",
        f"{left_out} of {len(pages)} pages",
    )


def test_pages_of_several_sizes_are_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", (UNEVEN, {}), (UNEVEN[:, :30], {}))
    assert_refused(f"{path}#0", "24 x 40, 24 x 30 pixels", "without fundus image")


# --- which way up, and which of several


def stored(shown: np.ndarray, orientation: int) -> np.ndarray:
    """Lay an image out so that EXIF's orientation turns it upright.

    By the standard's table of where the first row and the first column of what is stored are shown:
    1 top, left; 2 top, right; 3 bottom, right; 4 bottom, left; 5 left, top; 6 right, top; 7 right,
    bottom; 8 left, bottom.
    """
    rows = {1: 1, 2: 1, 3: -1, 4: -1, 5: 1, 6: 1, 7: -1, 8: -1}[orientation]
    columns = {1: 1, 2: -1, 3: -1, 4: 1, 5: 1, 6: -1, 7: -1, 8: 1}[orientation]
    turned = shown[::rows, ::columns]
    return np.ascontiguousarray(turned.T if orientation > 4 else turned)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(stored(UNEVEN, orientation))
    for suffix, options in {
        "jpg": {"quality": 98},
        "png": {},
        "tif": {"compression": "tiff_lzw"},
        "webp": {"lossless": True},
    }.items():
        path = tmp_path / f"a.{suffix}"
        picture.save(path, exif=exif, **options)
        assert_read(path, UNEVEN / 255, atol=0.03 if suffix == "jpg" else 1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("top", "size"), [(255, (24, 40)), (65535, (24, 40)), (255, (31, 31))])
def test_uncompressed_tiffs_stand_as_they_say(tmp_path, orientation, top, size):
    """Pillow maps such files into memory, and mixes up those that lie on their side."""
    volume = bscans(2, *size, top=top)
    pages = [(stored(bscan, orientation), {274: orientation}) for bscan in volume]
    path = write_tiff(tmp_path / "a.tif", *pages)
    for index in (1, 0):
        assert_read(f"{path}#{index}", volume[index] / top)
    np.testing.assert_allclose(np.stack(list(iter_images(path))), volume / top, atol=1e-6)
    assert_read(write_tiff(tmp_path / "b.tif", pages[0]), volume[0] / top)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp", "gif_named.png"])
def test_an_animation_is_refused(tmp_path, name):
    pages = [Image.fromarray(bscan) for bscan in bscans(3)]
    kind = {"a.png": "PNG", "a.webp": "WEBP"}.get(name, "GIF")
    pages[0].save(tmp_path / name, kind, save_all=True, append_images=pages[1:])
    for address in (tmp_path / name, f"{tmp_path / name}#0"):
        assert_refused(address, f"an animation, {kind}", "a TIFF of which every page")


def test_the_picture_of_an_mpo_is_its_first(tmp_path):
    """Cameras write a JPEG and previews of it into one file."""
    picture, preview = Image.fromarray(UNEVEN), Image.fromarray(SMALL)
    path = tmp_path / "a.jpg"
    picture.save(path, "MPO", quality=98, save_all=True, append_images=[preview])
    with Image.open(path) as image:
        assert image.format == "MPO"
    assert_read(path, UNEVEN / 255, atol=0.03)


def test_a_tiff_that_is_cut_before_its_contents_says_so(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + (5000).to_bytes(4, "little") + bytes(100))
    assert_refused(path, "108 bytes: the file is cut before its list of contents")
