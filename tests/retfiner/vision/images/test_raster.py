"""PNG, JPEG, TIFF and BMP as Pillow writes them, and TIFF stacks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.vision import count_images, iter_images, read_image
from retfiner.vision.images import VolumeError
from tests.helpers.image_files import bscans

EIGHT = bscans(1, 37, 53)[0]
SIXTEEN = bscans(1, 37, 53, top=65535)[0]


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
