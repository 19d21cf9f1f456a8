"""How each finding deforms the layers: one function a finding, in the order they are applied.

What no stack of layers can express (cysts, membranes, the walls of a hole) is painted over the
picture by :mod:`retfiner.data.phantoms.paint`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retfiner.data.phantoms.anatomy import Array, Layer, Tissue
from retfiner.data.phantoms.scene import Finding, Kind

SHAPE = 7  # purpose of a lesion's random stream


def bump(x_um: Array, centre_um: float, width_um: float, power: float = 1.5) -> Array:
    """Return a smooth dome of height 1 that is 0 beyond ``width_um / 2`` of its centre."""
    ratio = (x_um - np.float32(centre_um)) / np.float32(width_um / 2)
    return np.clip(1 - ratio * ratio, 0.0, 1.0) ** np.float32(power)


def plateau(x_um: Array, centre_um: float, width_um: float, edge_um: float) -> Array:
    """Return 1 within ``width_um``, falling smoothly to 0 over ``edge_um`` at either border."""
    distance = (width_um / 2 - np.abs(x_um - np.float32(centre_um))) / np.float32(edge_um) + 0.5
    step = np.clip(distance, 0.0, 1.0)
    return step * step * (3 - 2 * step)


def waves(generator: np.random.Generator, x_um: Array, spacing_um: float) -> Array:
    """Return a smooth random curve of unit scale that bends about every ``spacing_um``."""
    knots = generator.standard_normal(int(10000.0 / spacing_um) + 2).astype(np.float32)
    place = np.clip(x_um + np.float32(5000.0), 0.0, 9999.0) / np.float32(spacing_um)
    first = place.astype(int)
    share = place - first
    share = share * share * (3 - 2 * share)
    return knots[first] * (1 - share) + knots[first + 1] * share


def unit(curve: Array) -> Array:
    """Scale a curve so that its highest point is 1."""
    return curve / max(float(curve.max()), 1e-6)


def bell(x_um: Array, radius_um: float) -> Array:
    """Return a bell curve of height 1 at 0."""
    return np.exp(-((x_um / radius_um) ** 2))


def thin_nerve_fibres(tissue: Tissue, finding: Finding) -> None:
    """Glaucoma: nerve-fibre and ganglion-cell layers lose thickness and brightness."""
    share = np.full_like(tissue.x_um, finding.height_um / 1000.0)
    if finding.subtype in ("nasal", "temporal"):
        sign = 1.0 if finding.subtype == "nasal" else -1.0
        share *= (0.25 + 0.75 / (1 + np.exp(-sign * tissue.x_um / 350.0))).astype(np.float32)
    tissue.thickness[Layer.RNFL] *= 1 - share
    tissue.thickness[Layer.GCIPL] *= 1 - 0.62 * share
    tissue.reflectivity[Layer.RNFL] *= 1 - 0.22 * share


def atrophy(tissue: Tissue, finding: Finding) -> None:
    """Geographic atrophy: outer retina and pigment epithelium lost, light reaches the choroid."""
    generator = finding.stream(SHAPE)
    lost = plateau(tissue.x_um, finding.position_um, finding.width_um, 140.0)
    # The retina sags into the defect over a longer way than the epithelium takes to end.
    sagging = plateau(tissue.x_um, finding.position_um, finding.width_um + 60.0, 640.0)
    debris = np.clip(waves(generator, tissue.x_um, 90.0) - 0.7, 0.0, 1.5) * lost
    for layer, remaining in (
        (Layer.ONL, 0.34),
        (Layer.ELM, 0.2),
        (Layer.MYOID, 0.1),
        (Layer.EZ, 0.2),
        (Layer.OUTER_SEGMENTS, 0.2),
        (Layer.RPE, 0.35),
    ):
        tissue.thickness[layer] *= 1 - (1 - remaining) * sagging
    tissue.thickness[Layer.RPE] += 14 * debris
    for layer, value in ((Layer.ELM, 0.22), (Layer.EZ, 0.24), (Layer.OUTER_SEGMENTS, 0.26)):
        tissue.blend(layer, value, lost)
    tissue.reflectivity[Layer.RPE] *= 1 - 0.35 * np.clip(lost - 0.5 * debris, 0.0, 1.0)
    streaks = 1 + 0.18 * waves(generator, tissue.x_um, 60.0)
    tissue.transmission *= 1 + 0.95 * lost * np.clip(streaks, 0.5, 1.5)


def drusen(tissue: Tissue, finding: Finding) -> None:
    """Drusen: mounds of medium reflectivity between Bruch's membrane and the pigment epithelium."""
    generator = finding.stream(SHAPE)
    count = 2 + round(7 * finding.severity)
    places = np.concatenate(([0.0], generator.uniform(-0.5, 0.5, 15)))[:count]
    widths = generator.uniform(0.5, 1.0, 16)[:count] * (230 + 330 * finding.severity)
    heights = np.concatenate(([1.0], generator.uniform(0.45, 1.0, 15)))[:count]
    mounds = np.zeros_like(tissue.x_um)
    for place, width, height in zip(places, widths, heights, strict=True):
        centre = finding.position_um + place * (finding.width_um - width)
        mound = bump(tissue.x_um, centre, width, 1.2) * np.float32(height)
        mounds = np.maximum(mounds, mound)
    raised = mounds * np.float32(finding.height_um)
    tissue.thickness[Layer.DRUSEN] += raised
    # Drusen press into the outer retina and hardly show on the inner surface.
    before = tissue.thickness[Layer.RNFL : Layer.SUBRETINAL].sum(axis=0)
    tissue.squeeze(Layer.ONL, 0.75 * raised)
    tissue.squeeze(Layer.OUTER_SEGMENTS, 0.25 * raised, floor=0.4)
    left = raised - (before - tissue.thickness[Layer.RNFL : Layer.SUBRETINAL].sum(axis=0))
    for layer in (Layer.OPL, Layer.INL, Layer.GCIPL):
        tissue.squeeze(layer, 0.3 * left, floor=0.6)
    tissue.reflectivity[Layer.EZ] *= 1 - 0.35 * np.clip(raised / 100.0, 0.0, 1.0)
    tissue.roughness[Layer.DRUSEN] += 0.06
    tissue.transmission *= 1 - 0.12 * mounds


def detach_pigment_epithelium(tissue: Tissue, finding: Finding) -> None:
    """Pigment epithelial detachment: a dome below the RPE, empty (serous) or filled with tissue."""
    generator = finding.stream(SHAPE)
    serous = finding.subtype == "serous"
    dome = bump(tissue.x_um, finding.position_um, finding.width_um, 0.9 if serous else 1.1)
    if not serous:
        dome = unit(dome * np.clip(1 + 0.22 * waves(generator, tissue.x_um, 260.0), 0.4, 1.3))
    raised = dome * np.float32(finding.height_um)
    content = 0.09 if serous else float(generator.uniform(0.30, 0.44))
    inside = plateau(tissue.x_um, finding.position_um, finding.width_um, 40.0)
    tissue.blend(Layer.SUB_RPE, content, inside)
    tissue.roughness[Layer.SUB_RPE] += inside * (0.02 if serous else 0.09)
    tissue.thickness[Layer.SUB_RPE] += raised
    tissue.squeeze(Layer.ONL, 0.35 * raised, floor=0.45)
    tissue.squeeze(Layer.OUTER_SEGMENTS, 0.1 * raised, floor=0.5)
    tissue.transmission *= 1 - (0.15 if serous else 0.35) * dome


def subretinal_material(tissue: Tissue, finding: Finding) -> None:
    """Subretinal hyperreflective material: a ragged bright mass above the pigment epithelium."""
    generator = finding.stream(SHAPE)
    dome = bump(tissue.x_um, finding.position_um, finding.width_um, 0.9)
    ragged = np.clip(1 + 0.3 * waves(generator, tissue.x_um, 150.0), 0.3, 1.4) * dome
    raised = unit(ragged) * np.float32(finding.height_um)
    inside = plateau(tissue.x_um, finding.position_um, finding.width_um, 60.0)
    tissue.blend(Layer.MATERIAL, float(generator.uniform(0.52, 0.66)), inside)
    tissue.roughness[Layer.MATERIAL] += 0.09 * inside
    tissue.thickness[Layer.MATERIAL] += raised
    for layer in (Layer.EZ, Layer.OUTER_SEGMENTS, Layer.ELM):
        tissue.reflectivity[layer] *= 1 - 0.4 * inside
    tissue.reflectivity[Layer.RPE] *= 1 - 0.12 * inside
    tissue.squeeze(Layer.ONL, 0.5 * raised, floor=0.4)
    tissue.transmission *= 1 - 0.4 * dome


def subretinal_fluid(tissue: Tissue, finding: Finding) -> None:
    """Subretinal fluid: a dark lens between the photoreceptors and the pigment epithelium."""
    generator = finding.stream(SHAPE)
    lens = bump(tissue.x_um, finding.position_um, finding.width_um, 1.15)
    lens *= np.clip(1 + 0.07 * waves(generator, tissue.x_um, 400.0), 0.7, 1.3)
    raised = unit(lens) * np.float32(finding.height_um)
    tissue.thickness[Layer.SUBRETINAL] += raised
    tissue.squeeze(Layer.ONL, 0.2 * raised, floor=0.6)
    # Photoreceptor outer segments lengthen and become shaggy above standing fluid.
    shaggy = np.clip(waves(generator, tissue.x_um, 70.0), 0.0, 1.5) * np.clip(lens * 2, 0.0, 1.0)
    tissue.thickness[Layer.OUTER_SEGMENTS] += 9 * shaggy


def intraretinal_fluid(tissue: Tissue, finding: Finding) -> None:
    """Intraretinal fluid swells the middle layers; the cysts themselves are painted later."""
    generator = finding.stream(SHAPE)
    swell = bump(tissue.x_um, finding.position_um, finding.width_um * 1.25, 1.0)
    swell = swell * np.float32(finding.height_um)
    for layer, share in ((Layer.GCIPL, 0.08), (Layer.INL, 0.35), (Layer.OPL, 0.1)):
        tissue.thickness[layer] += share * swell
    tissue.thickness[Layer.ONL] += 0.47 * swell
    hazy = bump(tissue.x_um, finding.position_um, finding.width_um, 1.0)
    tissue.reflectivity[Layer.EZ] *= 1 - 0.25 * hazy * np.float32(generator.uniform(0.3, 1.0))
    tissue.transmission *= 1 - 0.15 * hazy


def membrane(tissue: Tissue, finding: Finding) -> None:
    """Epiretinal membrane: the surface wrinkles, the pit fills and the inner retina thickens."""
    generator = finding.stream(SHAPE)
    under = plateau(tissue.x_um, finding.position_um, finding.width_um, 500.0)
    folds = waves(generator, tissue.x_um, 130.0) * (4.0 + 11.0 * finding.severity)
    tissue.thickness[Layer.RNFL] += np.clip(folds, 0.0, 40.0) * under
    swell = np.float32(finding.height_um) * under
    for layer, share in ((Layer.RNFL, 0.15), (Layer.GCIPL, 0.45), (Layer.INL, 0.4)):
        tissue.thickness[layer] += share * swell * (0.55 + 0.9 * bell(tissue.x_um, 560.0))


def traction(tissue: Tissue, finding: Finding) -> None:
    """Vitreomacular traction: the adhesion pulls the fovea up into a peak or a flat roof."""
    edge_um = 700.0 + 0.5 * finding.width_um
    tent = plateau(tissue.x_um, finding.position_um, finding.width_um, edge_um)
    peak = 12 * finding.severity * bell(tissue.x_um, 620.0)
    swell = np.float32(finding.height_um) * tent
    for layer, share in ((Layer.GCIPL, 0.2), (Layer.INL, 0.3), (Layer.OPL, 0.15)):
        tissue.thickness[layer] += share * swell + peak
    tissue.thickness[Layer.ONL] += 0.35 * swell
    tissue.reflectivity[Layer.EZ] *= 1 - 0.3 * finding.severity * tent


def hole_edges(tissue: Tissue, finding: Finding) -> None:
    """Macular hole: swollen, rounded edges; the opening itself is painted later."""
    distance = np.abs(tissue.x_um - np.float32(finding.position_um)) - finding.width_um / 2
    for layer, fill in ((Layer.RNFL, 8.0), (Layer.GCIPL, 34.0), (Layer.INL, 22.0)):
        tissue.thickness[layer] += fill * bell(tissue.x_um, 700.0)
    beside = np.clip(distance, 0.0, None)
    edge = bell(beside, 420.0)
    tissue.thickness[Layer.ONL] += 0.6 * finding.height_um * edge
    tissue.thickness[Layer.INL] += 0.4 * finding.height_um * edge
    inner_rim = bell(beside, 160.0)
    tissue.thickness[Layer.SUBRETINAL] += 0.35 * finding.height_um * inner_rim
    tissue.reflectivity[Layer.EZ] *= 1 - 0.5 * inner_rim


# Losses first, then whatever pushes the remaining layers apart.
DEFORMATIONS: dict[Kind, Callable[[Tissue, Finding], None]] = {
    "rnfl_thinning": thin_nerve_fibres,
    "geographic_atrophy": atrophy,
    "drusen": drusen,
    "pigment_epithelial_detachment": detach_pigment_epithelium,
    "subretinal_hyperreflective_material": subretinal_material,
    "subretinal_fluid": subretinal_fluid,
    "intraretinal_fluid": intraretinal_fluid,
    "epiretinal_membrane": membrane,
    "vitreomacular_traction": traction,
    "macular_hole": hole_edges,
}


def deform(tissue: Tissue, findings: tuple[Finding, ...]) -> None:
    """Apply every finding's deformation to the layers, whatever order they are listed in."""
    order = list(DEFORMATIONS)
    for finding in sorted(findings, key=lambda finding: order.index(finding.kind)):
        DEFORMATIONS[finding.kind](tissue, finding)
