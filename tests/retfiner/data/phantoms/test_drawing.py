"""The healthy phantom: order and brightness of layers, the pit, laterality, the device's look."""

from __future__ import annotations

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.data.phantoms.anatomy import Layer, lateral_axis
from retfiner.data.phantoms.cohort import make_cohort
from retfiner.data.phantoms.optics import draw
from retfiner.data.phantoms.scene import KINDS, Anatomy, Finding, Scan


def normal(eye="OD", **anatomy):
    return Scan("P0001", eye, 1, Anatomy(seed=5, **anatomy))


def layer_means(scan, scans=12):
    """Mean grey value of each layer's middle row, over several acquisitions."""
    values = {layer: [] for layer in Layer}
    for seed in range(scans):
        drawing = draw(scan, np.random.default_rng(seed))
        tops = drawing.surfaces
        columns = np.arange(drawing.image.shape[1])
        for layer in Layer:
            if layer == Layer.VITREOUS:
                rows = tops[Layer.RNFL] - 15
            elif layer == Layer.CHOROID:
                rows = tops[Layer.CHOROID] + 10
            else:
                rows = (tops[layer] + tops[layer + 1]) / 2
            thick = layer in (Layer.VITREOUS, Layer.CHOROID)
            there = thick | (np.diff(tops, axis=0, append=tops[-1:])[layer] > 1)
            if np.any(there):  # the potential spaces of a healthy eye are nowhere
                values[layer].append(drawing.image[rows.astype(int), columns][there].mean())
    return {layer: float(np.mean(found)) for layer, found in values.items() if found}


def test_layers_have_the_relative_reflectivity_of_an_oct():
    mean = layer_means(normal())
    assert mean[Layer.VITREOUS] < 0.35 * mean[Layer.ONL]
    assert mean[Layer.RNFL] > 1.15 * mean[Layer.GCIPL]
    assert mean[Layer.GCIPL] > 1.15 * mean[Layer.INL]
    assert mean[Layer.OPL] > 1.15 * mean[Layer.INL]
    assert mean[Layer.OPL] > 1.4 * mean[Layer.ONL]
    assert mean[Layer.EZ] > 1.8 * mean[Layer.ONL]
    assert max(mean, key=mean.__getitem__) in (Layer.RPE, Layer.BRUCH)  # one band, as in an OCT
    assert mean[Layer.ONL] < mean[Layer.CHOROID] < mean[Layer.RPE]


def test_choroid_fades_with_depth():
    fading = []
    for seed in range(6):
        drawing = draw(normal(), np.random.default_rng(seed))
        wall = drawing.surfaces[Layer.CHOROID].astype(int)
        columns = np.arange(wall.size)
        near, far = (drawing.image[np.minimum(wall + d, 255), columns].mean() for d in (8, 70))
        fading.append(far / near)
    assert max(fading) < 0.75


def test_surfaces_never_cross_whatever_the_findings():
    for index, scan in enumerate(make_cohort(25, seed=3)):
        surfaces = draw(scan, np.random.default_rng(index), (96, 128)).surfaces
        assert (np.diff(surfaces[1:], axis=0) >= -1e-3).all(), scan


def test_the_foveal_pit_is_seen_in_the_picture_itself():
    """Segment the retinal surface by a threshold on the smoothed picture, not by the model."""
    scan = normal(curvature_um=0.0)
    drawings = [draw(scan, np.random.default_rng(seed)) for seed in range(8)]
    for drawing in drawings:
        smooth = np.apply_along_axis(
            np.convolve, 1, drawing.image.astype(float), np.ones(9) / 9, "same"
        )
        background = smooth[:15].mean()
        edge = smooth > background + 0.25 * (np.percentile(smooth, 97) - background)
        seen = np.argmax(edge, axis=0)[12:-12]
        told = drawing.surfaces[Layer.RNFL][12:-12]
        assert np.median(np.abs(seen - told)) < 3
        thickness = (drawing.surfaces[Layer.CHOROID][12:-12] - seen)[20:-20]
        fovea = int(np.argmin(thickness))
        assert thickness[fovea] < 0.78 * thickness.max()
        assert 80 < fovea + 32 < 304  # the pit lies in the middle third or near it


def test_inner_layers_thin_and_outer_nuclear_layer_thickens_at_the_fovea():
    drawing = draw(normal(), np.random.default_rng(0))
    thickness = np.diff(drawing.surfaces, axis=0)
    total = drawing.surfaces[Layer.CHOROID] - drawing.surfaces[Layer.RNFL]
    fovea = 60 + int(np.argmin(total[60:-60]))
    rim = fovea + 64  # 1 mm away
    assert thickness[Layer.GCIPL, fovea] < 0.3 * thickness[Layer.GCIPL, rim]
    assert thickness[Layer.INL, fovea] < 0.3 * thickness[Layer.INL, rim]
    assert thickness[Layer.ONL, fovea] > 1.15 * thickness[Layer.ONL, rim]


@pytest.mark.parametrize(("eye", "nasal"), [("OD", slice(300, 380)), ("OS", slice(4, 84))])
def test_nerve_fibres_are_thicker_towards_the_disc(eye, nasal):
    drawing = draw(normal(eye), np.random.default_rng(1))
    fibres = drawing.surfaces[Layer.GCIPL] - drawing.surfaces[Layer.RNFL]
    temporal = slice(4, 84) if eye == "OD" else slice(300, 380)
    assert fibres[nasal].mean() > 1.4 * fibres[temporal].mean()


def test_left_eyes_mirror_right_eyes():
    right, left = lateral_axis("OD", 384), lateral_axis("OS", 384)
    np.testing.assert_allclose(right, left[::-1], atol=1e-2)
    assert right[-1] > 2900


def test_retinal_vessels_cast_shadows_down_to_the_choroid():
    """Columns differ in brightness along the pigment epithelium because of the vessels above it."""
    drawing = draw(normal(), np.random.default_rng(2))
    rows = (drawing.surfaces[Layer.RPE] + 2).astype(int)
    band = np.stack([drawing.image[rows + d, np.arange(rows.size)] for d in (-1, 0, 1)]).mean(0)
    deep_rows = np.minimum(rows + 18, 255)
    deep = np.stack([drawing.image[deep_rows + d, np.arange(rows.size)] for d in (-2, 0, 2)])
    darkest = np.argsort(band)[:6]
    assert band[darkest].mean() < 0.75 * np.median(band)
    assert deep.mean(0)[darkest].mean() < 0.85 * np.median(deep.mean(0))


def test_same_generator_seed_same_picture_and_another_seed_another_one():
    scan = normal()
    first, again, other = (draw(scan, np.random.default_rng(s)).image for s in (4, 4, 5))
    assert first.dtype == np.uint8
    assert first.shape == (256, 384)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 3


def test_any_size_shows_the_same_eye():
    scan = Scan("P1", "OS", 1, Anatomy(seed=1), (Finding("subretinal_fluid", 0.7, 300.0, 3),))
    boxes = []
    for size in ((128, 192), (256, 384), (512, 768)):
        drawing = draw(scan, np.random.default_rng(0), size)
        assert drawing.image.shape == size
        boxes.append(np.array(drawing.boxes[0][1]) / np.array([*size, *size]))
    np.testing.assert_allclose(boxes[0], boxes[2], atol=0.04)
    np.testing.assert_allclose(boxes[1], boxes[2], atol=0.03)


def test_findings_out_of_range_are_refused():
    with pytest.raises(InputError, match="severity"):
        Finding("drusen", 0.0, 0.0, 1)
    with pytest.raises(InputError, match="Unknown finding"):
        Finding("cataract", 0.5, 0.0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_grow_with_severity(kind):
    sizes = [Finding(kind, severity, 0.0, 11) for severity in (0.1, 0.5, 1.0)]
    widths, heights = [s.width_um for s in sizes], [s.height_um for s in sizes]
    assert widths == sorted(widths)
    assert heights == sorted(heights)
    assert widths[0] < widths[-1] or heights[0] < heights[-1]
