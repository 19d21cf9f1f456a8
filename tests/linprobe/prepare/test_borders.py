"""White borders go, and nothing else: B-scans drawn, turned, and sent through JPEG."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from linprobe.prepare.borders import find_white_borders, zero_white_borders

H, W = 248, 256


def draw_scan(seed=0, layer=200):
    """Draw speckle over a dark vitreous, with layers that run off at both sides."""
    rng = np.random.default_rng(seed)
    rows = np.arange(H)[:, None] + 10 * np.cos(np.linspace(0, 6, W))[None]
    mean = 15 + 60 * (rows > 100) * (rows < 150) + layer * (rows > 140) * (rows < 150)
    return (mean * rng.gamma(4, 1 / 4, (H, W))).clip(0, 255).astype(np.uint8)


def turn(pixels, degrees, shift=0):
    """Rotate and shift a scan; return it with white, and the truth."""
    scan = Image.fromarray(pixels)
    beyond = Image.fromarray(np.full_like(pixels, 255))
    move = {"angle": degrees, "translate": (0, shift), "resample": Image.Resampling.BILINEAR}
    inside = np.asarray(beyond.rotate(**move, fillcolor=0))
    return np.asarray(scan.rotate(**move, fillcolor=255)), inside == 0


def jpeg(pixels, quality=90):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("quality", [75, 90, 100])
@pytest.mark.parametrize(("degrees", "shift"), [(3, 0), (-8, 0), (15, 0), (0, 20), (2, -30)])
def test_what_rotation_uncovered_becomes_black(degrees, shift, quality):
    turned, beyond = turn(draw_scan(), degrees, shift)
    image = jpeg(turned, quality)
    cleaned, share = zero_white_borders(image)
    assert (cleaned[beyond] == 0).mean() > 0.99
    assert share == pytest.approx(beyond.mean(), abs=0.02)
    changed = cleaned != image
    assert (changed & ~beyond).sum() < 0.02 * H * W  # the blurred rim alone
    assert (cleaned[~beyond & ~changed] == image[~beyond & ~changed]).all()
    assert image.max() == 255, "the image itself is left as it is"


@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_a_frame_of_a_single_pixel_is_found(edge):
    scan = draw_scan()
    line = {"left": np.s_[:, 0], "right": np.s_[:, -1], "top": np.s_[0], "bottom": np.s_[-1]}[edge]
    scan[line] = 255
    cleaned, _ = zero_white_borders(jpeg(scan, 95))
    assert cleaned[line].max() < 128
    inner = cleaned[8:-8, 8:-8].astype(int)
    assert np.abs(inner - scan[8:-8, 8:-8]).mean() < 4, "what lies within is the scan"


@pytest.mark.parametrize("layer", [200, 240, 400])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_scan_without_borders_is_left_untouched(layer, seed):
    scan = jpeg(draw_scan(seed, layer))
    assert (scan >= 250).any()
    cleaned, share = zero_white_borders(scan)
    assert cleaned is scan
    assert share == 0


def test_white_that_does_not_reach_the_edge_stays():
    scan = draw_scan()
    scan[20:60, 40:120] = 255
    assert not find_white_borders(scan).any()


def test_a_short_white_spot_at_the_edge_stays():
    scan = draw_scan()
    scan[100:114, :6] = 255  # 14 of 248: less than a sixteenth
    assert not find_white_borders(scan).any()
    scan[100:120, :6] = 255
    assert find_white_borders(scan)[100:120, :6].all()


def test_bright_is_not_white():
    scan = draw_scan()
    scan[:, :20] = np.random.default_rng(0).integers(240, 256, (H, 20))
    assert not find_white_borders(scan).any()


def test_an_image_of_white_alone_and_one_of_black_alone():
    white, black = np.full((40, 50), 255, np.uint8), np.zeros((40, 50), np.uint8)
    assert zero_white_borders(white)[1] == 1
    assert zero_white_borders(black)[1] == 0
