"""Every finding shows where its box says, and looks as it should."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from retfiner.data.phantoms.anatomy import Layer
from retfiner.data.phantoms.optics import draw
from retfiner.data.phantoms.scene import FIELD_DEPTH_UM, KINDS, Anatomy, Finding, Scan

SUBTYPES = {"pigment_epithelial_detachment": "serous", "rnfl_thinning": "diffuse"}


@cache
def with_and_without(kind, severity=0.6, position=0.0, eye="OD", subtype=None, seed=2):
    subtype = SUBTYPES.get(kind, "") if subtype is None else subtype
    finding = Finding(kind, severity, position, seed, subtype)
    eye_wall = Anatomy(seed=9, curvature_um=20.0)
    sick = draw(Scan("P", eye, 1, eye_wall, (finding,)), np.random.default_rng(3))
    healthy = draw(Scan("P", eye, 1, eye_wall), np.random.default_rng(3))
    return sick, healthy


def inside(drawing):
    row0, col0, row1, col1 = drawing.boxes[0][1]
    mask = np.zeros(drawing.image.shape, bool)
    mask[row0:row1, col0:col1] = True
    return mask


def difference(kind, **options):
    sick, healthy = with_and_without(kind, **options)
    return np.abs(sick.image.astype(float) - healthy.image), inside(sick), sick, healthy


@pytest.mark.parametrize("severity", [0.15, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_changes_inside_the_box_and_hardly_outside(kind, severity):
    change, box, _, _ = difference(kind, severity=severity)
    assert change[box].mean() > 3.0
    outside = change[~box].mean() * FIELD_DEPTH_UM  # whatever empty vitreous the frame has
    assert change[box].mean() * 1280 > 3.5 * outside


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "rnfl_thinning"])
def test_columns_far_from_a_small_finding_do_not_change_at_all(kind):
    change, box, _, _ = difference(kind, severity=0.1)
    columns = np.nonzero(box.any(axis=0))[0]
    reach = 90  # pixels: a membrane and its hyaloid fade out over 1 mm and more
    far = np.ones(change.shape[1], bool)
    far[max(columns[0] - reach, 0) : columns[-1] + reach] = False
    if kind == "vitreomacular_traction":  # its hyaloid spans the whole scan, above the retina
        retina_and_below = slice(150, 256)
        assert change[retina_and_below][:, far].mean() < 0.5
    else:
        assert change[:, far].mean() < 0.2


@pytest.mark.parametrize("kind", ["subretinal_fluid", "drusen", "geographic_atrophy"])
@pytest.mark.parametrize(("eye", "right"), [("OD", True), ("OS", False)])
def test_nasal_findings_lie_nasally(kind, eye, right):
    _, box, drawing, _ = difference(kind, severity=0.2, position=1000.0, eye=eye)
    middle = np.nonzero(box.any(axis=0))[0].mean()
    assert (middle > drawing.image.shape[1] / 2) == right


def lens(drawing, layer):
    """Mask of a potential space that a finding has opened, shrunk by a pixel."""
    rows = np.arange(drawing.image.shape[0])[:, None]
    return (rows > drawing.surfaces[layer] + 1) & (rows < drawing.surfaces[layer + 1] - 2)


def onl_mean(drawing):
    return drawing.image[lens(drawing, Layer.ONL)].mean()


def test_fluid_is_dark_and_material_is_bright():
    fluid, _ = with_and_without("subretinal_fluid")
    assert fluid.image[lens(fluid, Layer.SUBRETINAL)].mean() < 0.65 * onl_mean(fluid)
    material, _ = with_and_without("subretinal_hyperreflective_material")
    assert material.image[lens(material, Layer.MATERIAL)].mean() > 1.6 * onl_mean(material)


def test_serous_detachments_are_darker_than_fibrovascular_ones():
    serous, _ = with_and_without("pigment_epithelial_detachment")
    filled, _ = with_and_without("pigment_epithelial_detachment", subtype="fibrovascular")
    dark, grey = (d.image[lens(d, Layer.SUB_RPE)].mean() for d in (serous, filled))
    assert dark < 0.6 * grey


def test_detachments_lift_the_epithelium_by_their_height():
    sick, healthy = with_and_without("pigment_epithelial_detachment")
    lifted = (healthy.surfaces[Layer.RPE] - sick.surfaces[Layer.RPE]).max()
    assert lifted * FIELD_DEPTH_UM / 256 == pytest.approx(sick.boxes[0][0].height_um, rel=0.05)


def test_atrophy_lets_light_through_to_the_choroid_and_takes_the_epithelium():
    sick, healthy = with_and_without("geographic_atrophy", severity=0.7)
    _, col0, row1, col1 = sick.boxes[0][1]
    below = slice(min(row1 + 5, 250), min(row1 + 45, 256))
    inner = slice(col0 + 15, col1 - 15)
    assert sick.image[below, inner].mean() > 1.35 * healthy.image[below, inner].mean()
    thin = np.diff(sick.surfaces, axis=0)[Layer.RPE, inner].mean()
    assert thin < 0.75 * np.diff(healthy.surfaces, axis=0)[Layer.RPE, inner].mean()


def test_cysts_are_dark_holes_inside_the_retina():
    sick, healthy = with_and_without("intraretinal_fluid", severity=0.9)
    box = inside(sick)
    rows = np.arange(256)[:, None]
    retina = (rows > sick.surfaces[Layer.RNFL] + 4) & (rows < sick.surfaces[Layer.ELM])
    dark = sick.image < 0.45 * onl_mean(healthy)
    assert (dark & box & retina).sum() > 250
    assert (dark & box & retina).sum() > 3 * (dark & ~box & retina).sum()
    assert sick.central_thickness_um > healthy.central_thickness_um + 60


@pytest.mark.parametrize("severity", [0.2, 0.9])
def test_a_hole_is_open_from_vitreous_to_epithelium_over_its_aperture(severity):
    sick, _ = with_and_without("macular_hole", severity=severity)
    finding = sick.boxes[0][0]
    _, col0, _, col1 = sick.boxes[0][1]
    middle = (col0 + col1) // 2
    top, base = int(sick.surfaces[Layer.RNFL, middle]), int(sick.surfaces[Layer.RPE, middle])
    waist = base - int(0.42 * (base - top))
    row = sick.image[waist - 2 : waist + 3].mean(axis=0)
    open_columns = (row[middle - 60 : middle + 60] < 0.6 * onl_mean(sick)).sum()
    assert open_columns * 6000 / 384 == pytest.approx(finding.width_um, rel=0.3)
    assert sick.image[base + 1 : base + 3, middle].mean() > 2 * onl_mean(sick)


def test_membrane_flattens_the_pit_and_traction_lifts_it():
    membrane, healthy = with_and_without("epiretinal_membrane", severity=1.0)
    assert membrane.central_thickness_um > healthy.central_thickness_um + 30
    traction, healthy = with_and_without("vitreomacular_traction", severity=1.0)
    assert traction.central_thickness_um > healthy.central_thickness_um + 80


@pytest.mark.parametrize(("severity", "least", "most"), [(0.1, 0.5, 0.75), (1.0, 0.1, 0.3)])
def test_nerve_fibre_loss_is_subtle_when_mild_and_plain_when_severe(severity, least, most):
    sick, healthy = with_and_without("rnfl_thinning", severity=severity)
    fibres = [d.surfaces[Layer.GCIPL] - d.surfaces[Layer.RNFL] for d in (sick, healthy)]
    assert least < fibres[0].mean() / fibres[1].mean() < most


def test_one_sided_nerve_fibre_loss_spares_the_other_side():
    sick, healthy = with_and_without("rnfl_thinning", subtype="nasal")  # a right eye: right side
    fibres = [d.surfaces[Layer.GCIPL] - d.surfaces[Layer.RNFL] for d in (sick, healthy)]
    remaining = fibres[0] / np.maximum(fibres[1], 0.1)
    assert remaining[300:380].mean() < remaining[4:84].mean() - 0.2


def test_findings_combine_and_keep_their_boxes():
    findings = tuple(
        Finding(kind, 0.5, place, 4, SUBTYPES.get(kind, ""))
        for kind, place in (
            ("pigment_epithelial_detachment", -600.0),
            ("subretinal_fluid", 500.0),
            ("epiretinal_membrane", 0.0),
        )
    )
    drawing = draw(Scan("P", "OD", 1, Anatomy(seed=2), findings), np.random.default_rng(0))
    assert [finding for finding, _ in drawing.boxes] == list(findings)
    height, width = drawing.image.shape
    for _, (row0, col0, row1, col1) in drawing.boxes:
        assert 0 <= row0 < row1 <= height
        assert 0 <= col0 < col1 <= width


@pytest.mark.parametrize("kind", ["drusen", "pigment_epithelial_detachment"])
def test_boxes_hold_the_whole_elevation(kind):
    sick, healthy = with_and_without(kind)
    row0, col0, row1, col1 = sick.boxes[0][1]
    lifted = np.nonzero(healthy.surfaces[Layer.RPE] - sick.surfaces[Layer.RPE] > 2)[0]
    assert col0 <= lifted.min() <= lifted.max() < col1
    assert row0 <= sick.surfaces[Layer.RPE, lifted].min()
    assert row1 >= sick.surfaces[Layer.BRUCH, lifted].max()
