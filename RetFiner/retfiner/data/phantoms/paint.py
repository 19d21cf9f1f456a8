"""What is painted over the layers: cysts, membranes, the opening of a hole; and where all lie.

Boxes are ``(row0, col0, row1, col1)`` in pixels, the last row and column excluded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retfiner.data.phantoms.anatomy import REFLECTIVITY, Array, Layer
from retfiner.data.phantoms.lesions import waves
from retfiner.data.phantoms.scene import Finding, Kind

Box = tuple[int, int, int, int]
PAINT = 8  # purpose of a lesion's random stream


@dataclass
class Canvas:
    """A B-scan in reflectivity, before speckle, with the surfaces of its layers.

    Args:
        image: (H, W) reflectivity, painted in place.
        surfaces: (17, W) row of the upper boundary of each layer, in pixels from the top.
        x_um: (W,) lateral position in µm from the fovea, nasal positive.
        row_um: Height of a pixel in µm.
        col_um: Width of a pixel in µm.
    """

    image: Array
    surfaces: Array
    x_um: Array
    row_um: float
    col_um: float

    def distance(self, finding: Finding) -> Array:
        """Return the (W,) lateral distance of each column from a finding's centre in µm."""
        return np.abs(self.x_um - np.float32(finding.position_um))

    def column(self, x_um: float) -> int:
        """Return the column nearest to a lateral position."""
        return int(np.abs(self.x_um - x_um).argmin())

    def ellipse(self, row: float, col: float, half: tuple[float, float], value: float) -> Box:
        """Blend a soft-edged ellipse of half axes ``half`` (rows, columns) towards ``value``."""
        height, width = self.image.shape
        row0, row1 = max(int(row - half[0]) - 1, 0), min(int(row + half[0]) + 3, height)
        col0, col1 = max(int(col - half[1]) - 1, 0), min(int(col + half[1]) + 3, width)
        if row0 >= row1 or col0 >= col1:
            return (0, 0, 0, 0)
        rows = (np.arange(row0, row1, dtype=np.float32)[:, None] - row) / half[0]
        cols = (np.arange(col0, col1, dtype=np.float32)[None] - col) / half[1]
        radius = np.sqrt(rows * rows + cols * cols)
        weight = np.clip((1.0 - radius) * min(half) + 0.5, 0.0, 1.0)
        patch = self.image[row0:row1, col0:col1]
        patch += (value - patch) * weight
        return (row0, col0, row1, col1)

    def line(self, rows: Array, strength: Array, value: float, thickness: float) -> None:
        """Draw a curve, one row a column, blended by ``strength`` (0 leaves a column alone)."""
        height = self.image.shape[0]
        columns = np.nonzero(strength > 0.01)[0]
        first = np.floor(rows[columns]).astype(int)
        reach = int(np.ceil(thickness / 2)) + 1
        for offset in range(-reach, reach + 1):
            row = first + offset
            distance = np.abs(row - rows[columns])
            weight = np.clip(thickness / 2 + 0.5 - distance, 0.0, 1.0) * strength[columns]
            inside = (row >= 0) & (row < height)
            at = (row[inside], columns[inside])
            self.image[at] += (value - self.image[at]) * weight[inside]

    def box(self, columns: np.ndarray, top: Array, bottom: Array) -> Box | None:
        """Return the box around the columns of a mask between two curves, None when it is empty."""
        height, width = self.image.shape
        where = np.nonzero(columns)[0]
        if where.size == 0:
            return None
        row0 = int(np.clip(np.floor(top[where].min() - 2.0), 0, height - 1))
        row1 = int(np.clip(np.ceil(bottom[where].max() + 2.0), row0 + 1, height))
        return (row0, max(int(where[0]) - 1, 0), row1, min(int(where[-1]) + 2, width))


def _join(boxes: list[Box]) -> Box | None:
    boxes = [box for box in boxes if box[2] > box[0]]
    if not boxes:
        return None
    row0, col0, row1, col1 = zip(*boxes, strict=True)
    return (min(row0), min(col0), max(row1), max(col1))


def cysts(canvas: Canvas, finding: Finding) -> Box | None:
    """Paint intraretinal cysts: dark, round to columnar, larger towards the lesion's centre."""
    generator = finding.stream(PAINT)
    count = 3 + round(20 * finding.severity)
    offsets = np.concatenate(([0.0], generator.uniform(-0.5, 0.5, 40)))[:count]
    depths = generator.random(41)[:count]
    sizes = np.concatenate(([1.0], generator.uniform(0.3, 1.0, 40)))[:count]
    boxes = []
    for offset, depth, size in zip(offsets, depths, sizes, strict=True):
        col = canvas.column(finding.position_um + offset * finding.width_um)
        central = 1 - 1.1 * abs(offset)
        upper, lower = (Layer.INL, Layer.OPL) if depth < 0.3 and offset else (Layer.OPL, Layer.ELM)
        top, bottom = canvas.surfaces[upper, col], canvas.surfaces[lower, col]
        room = float(bottom - top)
        half_rows = min((24 + 105 * finding.severity) * size * central / canvas.row_um, 0.52 * room)
        half_rows = max(half_rows, 1.7)
        half_cols = max(half_rows * canvas.row_um / canvas.col_um * (0.8 + 1.1 * depth), 1.3)
        middle = float(top + room * np.clip(0.5 + 0.25 * (depth - 0.5), 0.3, 0.7))
        boxes.append(canvas.ellipse(middle, col, (half_rows, half_cols), 0.04 + 0.03 * depth))
    for _ in range(round(6 * finding.severity)):  # hyperreflective foci
        col = canvas.column(finding.position_um + generator.uniform(-0.6, 0.6) * finding.width_um)
        top, bottom = canvas.surfaces[Layer.INL, col], canvas.surfaces[Layer.ONL + 1, col]
        row = float(generator.uniform(top, bottom))
        boxes.append(canvas.ellipse(row, col, (1.2, 0.8), 0.75))
    return _join(boxes)


def hole(canvas: Canvas, finding: Finding) -> Box | None:
    """Paint the opening of a full-thickness macular hole, waisted, down to the pigment epithelium.

    Large holes may carry an operculum, the torn-off lid, floating above.
    """
    generator = finding.stream(PAINT)
    image = canvas.image
    top = canvas.surfaces[Layer.RNFL]
    base = canvas.surfaces[Layer.RPE]
    distance = canvas.distance(finding)
    columns = distance < 0.9 * finding.width_um + 260
    rows = np.arange(image.shape[0], dtype=np.float32)[:, None]
    span = np.clip(base[columns] - top[columns], 1.0, None)
    share = np.clip((base[columns] - rows) / span, 0.0, 1.4)  # 0 on the epithelium, 1 on top
    waist = 1 + 0.75 * (share - 0.42) ** 2 + 0.9 * np.clip(share - 0.72, 0.0, None)
    spread = 90.0 * np.clip(share - 0.6, 0.0, None) ** 2 + 40.0 * (share - 0.42) ** 2
    inside = finding.width_um / 2 * waist + spread - distance[columns]
    weight = np.clip(inside / canvas.col_um + 0.5, 0.0, 1.0) * (rows < base[columns] - 0.5)
    patch = image[:, columns]
    image[:, columns] = patch + (REFLECTIVITY[Layer.VITREOUS] - patch) * weight
    opening = distance < finding.width_um / 2 + 120
    boxes = [canvas.box(opening, top, base)]
    if finding.severity > 0.35 and generator.random() < 0.5:
        col = canvas.column(finding.position_um + generator.uniform(-90, 90))
        row = float(top[opening].min() - generator.uniform(60, 190) / canvas.row_um)
        half = (2.2, 0.32 * finding.width_um / canvas.col_um)
        boxes.append(canvas.ellipse(row, col, half, 0.42))
    return _join([box for box in boxes if box is not None])


def epiretinal(canvas: Canvas, finding: Finding) -> Box | None:
    """Paint an epiretinal membrane: a bright line on the surface, lifted off it between pegs."""
    generator = finding.stream(PAINT)
    gap = np.clip(waves(generator, canvas.x_um, 330.0), 0.0, 2.0) * (3 + 13 * finding.severity)
    distance = canvas.distance(finding)
    strength = np.clip((finding.width_um / 2 - distance) / 250.0, 0.0, 1.0)
    patchy = np.clip(1.1 + 0.5 * waves(generator, canvas.x_um, 260.0), 0.35, 1.0)
    surface = canvas.surfaces[Layer.RNFL]
    rows = surface - (gap + 3.0) / canvas.row_um
    thickness = (8.0 + 7.0 * finding.severity) / canvas.row_um
    bright = 0.66 + 0.16 * finding.severity
    canvas.line(rows, (strength * patchy).astype(np.float32), bright, thickness)
    below = surface + 45.0 / canvas.row_um
    return canvas.box(distance < finding.width_um / 2, rows, below)


def hyaloid_tent(canvas: Canvas, finding: Finding) -> Box | None:
    """Paint the posterior hyaloid of vitreomacular traction: a tent held down at the fovea."""
    generator = finding.stream(PAINT)
    distance = np.clip(canvas.distance(finding) - finding.width_um / 2, 0.0, None)
    reach = float(generator.uniform(900.0, 2000.0))
    rise = float(generator.uniform(110.0, 260.0)) * (0.6 + 0.4 * finding.severity)
    lift = rise * (1 - np.exp(-distance / reach)) + 3.0 * waves(generator, canvas.x_um, 500.0)
    surface = canvas.surfaces[Layer.RNFL]
    held = float(surface[canvas.column(finding.position_um)])
    taut = held - lift / canvas.row_um + 0.35 * (surface - held)
    rows = np.minimum(taut, surface - 3.0 / canvas.row_um).astype(np.float32)
    fade = 0.85 * np.exp(-distance / 2600.0) + 0.1
    canvas.line(rows, fade.astype(np.float32), 0.55, 9.0 / canvas.row_um)
    near = distance < 500.0
    return canvas.box(near, rows, canvas.surfaces[Layer.INL])


Painter = Callable[[Canvas, Finding], Box | None]


def _between(upper: Layer, lower: Layer, share: float = 1.0) -> Painter:
    """Return a painter that paints nothing: the finding lies between two surfaces."""

    def locate(canvas: Canvas, finding: Finding) -> Box | None:
        columns = np.abs(canvas.x_um - finding.position_um) < share * finding.width_um / 2
        return canvas.box(columns, canvas.surfaces[upper], canvas.surfaces[lower])

    return locate


# In painting order: the opening of a hole goes through whatever lies around it.
PAINTERS: dict[Kind, Painter] = {
    "rnfl_thinning": _between(Layer.RNFL, Layer.INL),
    "geographic_atrophy": _between(Layer.ONL, Layer.CHOROID),
    "drusen": _between(Layer.RPE, Layer.CHOROID),
    "pigment_epithelial_detachment": _between(Layer.RPE, Layer.CHOROID),
    "subretinal_hyperreflective_material": _between(Layer.MATERIAL, Layer.DRUSEN),
    "subretinal_fluid": _between(Layer.SUBRETINAL, Layer.MATERIAL, 0.9),
    "intraretinal_fluid": cysts,
    "macular_hole": hole,
    "epiretinal_membrane": epiretinal,
    "vitreomacular_traction": hyaloid_tent,
}


def paint(canvas: Canvas, findings: tuple[Finding, ...]) -> list[tuple[Finding, Box]]:
    """Paint findings, and return those inside the field with their boxes, in the order listed."""
    order = list(PAINTERS)
    boxes: dict[int, Box | None] = {}
    for index in sorted(range(len(findings)), key=lambda i: order.index(findings[i].kind)):
        boxes[index] = PAINTERS[findings[index].kind](canvas, findings[index])
    found = ((finding, boxes[index]) for index, finding in enumerate(findings))
    return [(finding, box) for finding, box in found if box is not None]
