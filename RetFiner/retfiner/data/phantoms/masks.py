"""Where each finding of a phantom lies, pixel by pixel.

Nothing is segmented: a lesion that deforms the layers lies between two of the drawing's own
surfaces, and one that is painted is painted once more on an empty canvas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.data.phantoms.anatomy import Array, Layer
from retfiner.data.phantoms.cohort import make_cohort, stream
from retfiner.data.phantoms.generate import MARKER, PAIR_IMAGE
from retfiner.data.phantoms.optics import Drawing, draw
from retfiner.data.phantoms.paint import PAINTERS, Canvas
from retfiner.data.phantoms.scene import FIELD_DEPTH_UM, FIELD_WIDTH_UM, Finding, Kind, Scan

Mask = NDArray[np.bool_]

EMPTY = 10.0
"""Far above every reflectivity: what has been painted half over it is known by its value."""

HOLE_EDGE_UM = 120.0
"""How far beside a macular hole's aperture its edges are counted as its place."""

MEMBRANE_UM = 45.0
"""How far below an epiretinal membrane the wrinkled surface is counted as its place."""

TRACTION_UM = 500.0
"""How far beside its adhesion a vitreomacular traction is looked for."""


class MaskedScan(NamedTuple):
    """A scan by its image in ``pairs.csv``, and (H, W) masks by finding, none beyond the frame."""

    name: str
    masks: dict[Kind, Mask]


def masks_of(scan: Scan, drawing: Drawing) -> dict[Kind, Mask]:
    """Return the (H, W) mask of each finding of a drawn scan that lies within the frame."""
    masks: dict[Kind, Mask] = {}
    for finding in scan.findings:
        mask = _LOCATORS[finding.kind](drawing, finding, scan)
        if mask.any():
            masks[finding.kind] = masks.get(finding.kind, np.zeros_like(mask)) | mask
    return masks


def masks_of_pairs(folder: Path | str, names: set[str] | None = None) -> Iterator[MaskedScan]:
    """Draw the scans of a folder of phantoms again, and yield where their findings lie.

    By default all of them, in the cohort's order; ``names`` are images as in ``pairs.csv``.

    Raises:
        InputError: If it is no complete folder of phantoms, or an image is not the one drawn.
    """
    folder = Path(folder)
    marker = folder / MARKER
    if not marker.is_file():
        raise InputError(
            f"{folder} holds no phantoms",
            got=f"no {MARKER}",
            expected="a folder that python -m retfiner.data.phantoms has written",
        )
    settings = json.loads(marker.read_text(encoding="utf-8"))
    seed, size = int(settings["seed"]), tuple(settings["size"])
    for index, scan in enumerate(make_cohort(int(settings["n_patients"]), seed)):
        name = f"images/{scan.name}.png"
        if names is not None and name not in names:
            continue
        drawing = draw(scan, stream(seed, PAIR_IMAGE, index), size)
        with Image.open(folder / name, formats=("PNG",)) as image:
            if not np.array_equal(np.asarray(image), drawing.image):
                raise InputError(
                    f"{folder / name} is not the phantom of its settings",
                    remedy="generate the phantoms anew into another folder",
                )
        yield MaskedScan(name, masks_of(scan, drawing))


Locator = Callable[[Drawing, Finding, Scan], Mask]


def _between(upper: Layer, lower: Layer, least_um: float = 0.0) -> Locator:
    """Find a lesion between two surfaces, where they are some way apart."""

    def locate(drawing: Drawing, finding: Finding, scan: Scan) -> Mask:
        top, bottom = drawing.surfaces[upper], drawing.surfaces[lower]
        is_apart = (bottom - top) * _row_um(drawing) > least_um
        return _rows(drawing, top, bottom, _within(drawing, finding) & is_apart)

    return locate


def _atrophy(drawing: Drawing, finding: Finding, scan: Scan) -> Mask:
    """Find atrophy: the lost outer retina, and the choroid below it that lights up for it."""
    depth = np.float32(scan.anatomy.choroid_um / _row_um(drawing))
    bottom = drawing.surfaces[Layer.CHOROID] + depth
    return _rows(drawing, drawing.surfaces[Layer.ONL], bottom, _within(drawing, finding))


def _painted(drawing: Drawing, finding: Finding, scan: Scan, most: float = 0.55) -> Mask:
    """Find what the finding's painter paints, leaving at most a share of what was below."""
    height, width = drawing.image.shape
    empty = np.full((height, width), EMPTY, np.float32)
    col_um = FIELD_WIDTH_UM / width
    canvas = Canvas(empty, drawing.surfaces, drawing.x_um, _row_um(drawing), col_um)
    PAINTERS[finding.kind](canvas, finding)
    return canvas.image < EMPTY * most


def _hole(drawing: Drawing, finding: Finding, scan: Scan) -> Mask:
    """Find the opening of a macular hole, from the height of its lifted edges downwards."""
    near = _within(drawing, finding, HOLE_EDGE_UM)
    highest = drawing.surfaces[Layer.RNFL][near].min(initial=drawing.image.shape[0])
    rows = np.arange(drawing.image.shape[0])[:, None]
    return _painted(drawing, finding, scan) & (rows >= highest) & near


def _membrane(drawing: Drawing, finding: Finding, scan: Scan) -> Mask:
    """Find an epiretinal membrane and the surface that it wrinkles."""
    top = drawing.surfaces[Layer.RNFL]
    bottom = top + np.float32(MEMBRANE_UM / _row_um(drawing))
    below = _rows(drawing, top, bottom, _within(drawing, finding))
    return below | _painted(drawing, finding, scan)


def _traction(drawing: Drawing, finding: Finding, scan: Scan) -> Mask:
    """Find vitreomacular traction: the taut hyaloid at the fovea and the tissue that it lifts."""
    near = _within(drawing, finding, TRACTION_UM)
    line = _painted(drawing, finding, scan, 0.75) & near
    lifted = _rows(drawing, drawing.surfaces[Layer.RNFL], drawing.surfaces[Layer.INL], near)
    return line | lifted


_LOCATORS: dict[Kind, Locator] = {
    "rnfl_thinning": _between(Layer.RNFL, Layer.INL),
    "geographic_atrophy": _atrophy,
    "drusen": _between(Layer.RPE, Layer.SUB_RPE, least_um=25.0),
    "pigment_epithelial_detachment": _between(Layer.RPE, Layer.BRUCH, least_um=30.0),
    "subretinal_hyperreflective_material": _between(Layer.MATERIAL, Layer.RPE, least_um=5.0),
    "subretinal_fluid": _between(Layer.SUBRETINAL, Layer.MATERIAL, least_um=5.0),
    "intraretinal_fluid": _painted,
    "macular_hole": _hole,
    "epiretinal_membrane": _membrane,
    "vitreomacular_traction": _traction,
}


def _row_um(drawing: Drawing) -> float:
    return FIELD_DEPTH_UM / drawing.image.shape[0]


def _within(drawing: Drawing, finding: Finding, margin_um: float = 0.0) -> Mask:
    """Return (W,), true in the columns of a finding."""
    distance = np.abs(drawing.x_um - np.float32(finding.position_um))
    return distance < finding.width_um / 2 + margin_um


def _rows(drawing: Drawing, top: Array, bottom: Array, columns: Mask) -> Mask:
    """Return (H, W), true from row ``top`` to row ``bottom`` in the columns of a mask."""
    rows = np.arange(drawing.image.shape[0], dtype=np.float32)[:, None]
    return (rows >= np.floor(top)) & (rows < bottom) & columns
