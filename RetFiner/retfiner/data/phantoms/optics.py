"""From a stack of layers to a picture as a device exports it: choroid, vessels, speckle, display.

Every draw of chance comes from streams that know nothing of the findings: the same scan with and
without a lesion carries the same speckle, and no class is brighter or noisier than another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from retfiner.common.errors import InputError
from retfiner.data.phantoms.anatomy import (
    Array,
    Layer,
    Tissue,
    central_thickness_um,
    healthy_tissue,
    lateral_axis,
)
from retfiner.data.phantoms.lesions import deform, waves
from retfiner.data.phantoms.paint import Box, Canvas, paint
from retfiner.data.phantoms.scene import FIELD_DEPTH_UM, FIELD_WIDTH_UM, Anatomy, Finding, Scan

Size = tuple[int, int]
DEFAULT_SIZE: Size = (256, 384)


def check_size(size: Size) -> None:
    """Refuse sizes at which the layers cannot be told apart."""
    if min(size) < 64:
        raise InputError(
            "B-scans this small cannot show the retina's layers.",
            got=f"{size[0]} x {size[1]}",
            expected="at least 64 x 64 pixels",
        )


@dataclass(frozen=True)
class Drawing:
    """A drawn B-scan.

    Args:
        image: (H, W) uint8.
        boxes: Each finding with its place, ``(row0, col0, row1, col1)`` in pixels.
        surfaces: (17, W) row of the upper boundary of each :class:`Layer`.
        x_um: (W,) lateral position of each column in µm from the fovea, nasal positive.
        central_thickness_um: Central macular thickness (mean over the central 1 mm).
    """

    image: np.ndarray
    boxes: list[tuple[Finding, Box]]
    surfaces: Array
    x_um: Array
    central_thickness_um: float


@dataclass(frozen=True)
class Acquisition:
    """How one scan was taken: position, tilt, and the device's own look."""

    fovea_shift_um: float
    depth_um: float
    tilt_um: float
    gain: float
    gamma: float
    speckle: float
    grain: float
    floor: float
    vignette: float
    roll_off_um: float

    @classmethod
    def sample(cls, generator: np.random.Generator) -> Acquisition:
        """Draw the settings of one scan; wide enough that brightness and grain tell nothing."""
        uniform = generator.uniform
        return cls(
            fovea_shift_um=float(np.clip(generator.normal(0.0, 170.0), -420.0, 420.0)),
            depth_um=float(uniform(500.0, 640.0)),
            tilt_um=float(np.clip(generator.normal(0.0, 65.0), -150.0, 150.0)),
            gain=float(uniform(0.72, 1.22)),
            gamma=float(uniform(0.85, 1.2)),
            speckle=float(uniform(0.08, 0.27)),
            grain=float(uniform(0.25, 1.0)),
            floor=float(uniform(0.012, 0.075)),
            vignette=float(uniform(-0.22, 0.22)),
            roll_off_um=float(uniform(1500.0, 4500.0)),
        )


def draw(scan: Scan, generator: np.random.Generator, size: Size = DEFAULT_SIZE) -> Drawing:
    """Draw a scan.

    The scan fixes its findings, the generator the chance of the acquisition: position, gain,
    speckle.
    """
    setup, texture, speckle = (
        np.random.default_rng(int(seed)) for seed in generator.integers(2**62, size=3)
    )
    acquisition = Acquisition.sample(setup)
    x_um = lateral_axis(scan.eye, size[1], acquisition.fovea_shift_um)
    tissue = healthy_tissue(scan.anatomy, x_um)
    deform(tissue, scan.findings)
    surfaces = _place(tissue, scan.anatomy, acquisition, size)
    image = _layers(tissue, surfaces, size)
    _roughen(image, tissue, surfaces, texture)
    canvas = Canvas(image, surfaces, x_um, FIELD_DEPTH_UM / size[0], FIELD_WIDTH_UM / size[1])
    _add_choroid(canvas, tissue, scan.anatomy)
    if scan.anatomy.hyaloid_um and "vitreomacular_traction" not in scan.kinds:
        _add_hyaloid(canvas, scan.anatomy)
    boxes = paint(canvas, scan.findings)
    _add_retinal_vessels(canvas, scan.anatomy)
    pixels = _develop(canvas, acquisition, speckle)
    return Drawing(pixels, boxes, surfaces, x_um, central_thickness_um(tissue))


def _place(tissue: Tissue, anatomy: Anatomy, acquisition: Acquisition, size: Size) -> Array:
    """Return the row of every surface: the eye wall's curve, less the height above it."""
    ratio = tissue.x_um / 3000.0
    wall = acquisition.depth_um + acquisition.tilt_um * ratio - anatomy.curvature_um * ratio**2
    depth = wall - tissue.surfaces()
    highest = float(depth[Layer.RNFL].min())
    depth += max(60.0 - highest, 0.0)  # the operator keeps the retina inside the frame
    return (depth * (size[0] / FIELD_DEPTH_UM)).astype(np.float32)


def _layers(tissue: Tissue, surfaces: Array, size: Size) -> Array:
    """Fill the layers: reflectivity steps at the surfaces, split between rows, summed downwards."""
    height, width = size
    steps = np.zeros((height + 2, width), np.float32)
    steps[0] = tissue.reflectivity[0]
    columns = np.arange(width)
    for layer in range(1, len(Layer)):
        change = tissue.reflectivity[layer] - tissue.reflectivity[layer - 1]
        row = np.clip(surfaces[layer], 0.0, height - 0.001)
        first = row.astype(int)
        share = row - first
        steps[first, columns] += change * (1 - share)
        steps[first + 1, columns] += change * share
    return np.cumsum(steps[:height], axis=0)


def _roughen(image: Array, tissue: Tissue, surfaces: Array, generator: np.random.Generator) -> None:
    """Give the layers a coarse texture that runs along them, stronger in diseased material."""
    height, width = image.shape
    noise = generator.standard_normal((height, width), dtype=np.float32)
    noise = uniform_filter1d(uniform_filter1d(noise, 9, axis=1), 2, axis=0)
    image *= 1 + np.float32(0.22) * noise
    for layer in (Layer.MATERIAL, Layer.SUB_RPE, Layer.DRUSEN):
        columns = np.nonzero(tissue.thickness[layer] > 2.0)[0]
        if columns.size == 0:
            continue
        part = slice(int(columns[0]), int(columns[-1]) + 1)
        rows = np.arange(height, dtype=np.float32)[:, None]
        inside = (rows > surfaces[layer, part]) & (rows < surfaces[layer + 1, part])
        coarse = uniform_filter1d(uniform_filter1d(noise[:, part], 5, axis=1), 5, axis=0)
        image[:, part] *= 1 + inside * coarse * tissue.roughness[layer, part] * np.float32(11)
    np.clip(image, 0.0, None, out=image)


def _add_choroid(canvas: Canvas, tissue: Tissue, anatomy: Anatomy) -> None:
    """Add the choroid and sclera, drawn flat and then hung below Bruch's membrane."""
    wall = np.clip(np.floor(canvas.surfaces[Layer.CHOROID]).astype(int), 0, None)
    first = int(wall.min())
    height = canvas.image.shape[0] - first
    if height <= 0:
        return
    flat = _flat_choroid(canvas, anatomy, height)
    below = np.arange(height)[:, None] - (wall - first)
    light = np.take_along_axis(flat, np.clip(below, 0, None), axis=0)
    canvas.image[first:] += np.where(below >= 0, light * tissue.transmission, np.float32(0))


def _flat_choroid(canvas: Canvas, anatomy: Anatomy, height: int) -> Array:
    """Draw ``height`` rows below Bruch's: choriocapillaris, vessels, fading light, sclera."""
    generator = np.random.default_rng((anatomy.seed, 1))
    width, row_um, col_um = canvas.x_um.size, canvas.row_um, canvas.col_um
    depth = np.arange(height, dtype=np.float32)[:, None] * np.float32(row_um)
    thick = anatomy.choroid_um * (1 + 0.12 * waves(generator, canvas.x_um, 900.0))
    border = np.clip((thick - depth) / 40.0 + 0.5, 0.0, 1.0)  # 1 in the choroid, 0 in the sclera
    stroma = 0.47 * np.exp(-depth / np.float32(80 + 0.4 * anatomy.choroid_um))
    flat = stroma * (0.3 + 0.7 * border) + 0.16 * np.exp(-depth / 260.0) * (1 - border)
    sheet = Canvas(flat.astype(np.float32), canvas.surfaces, canvas.x_um, row_um, col_um)
    for _ in range(24):  # Sattler's layer: many small lumina
        row = float(generator.uniform(25, 0.35 * anatomy.choroid_um)) / row_um
        half = generator.uniform(8, 22) / row_um, generator.uniform(25, 80) / col_um
        _lumen(sheet, row, float(generator.uniform(-3200, 3200)), half, 0.62)
    for _ in range(18):  # Haller's layer: fewer, larger ones
        size = float(generator.uniform(0.08, 0.22)) * anatomy.choroid_um
        row = float(generator.uniform(0.42, 0.8)) * anatomy.choroid_um / row_um
        half = size / row_um, size * float(generator.uniform(1.0, 2.6)) / col_um
        _lumen(sheet, row, float(generator.uniform(-3200, 3200)), half, 0.5)
    mottle = generator.standard_normal((height // 2 + 1, width // 2 + 1), dtype=np.float32)
    mottle = mottle.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    flat = sheet.image * (1 + 0.5 * mottle)
    flat = uniform_filter1d(uniform_filter1d(flat, 6, axis=1), 5, axis=0)
    return flat + 0.13 * np.exp(-((depth / 16.0) ** 2))


def _lumen(sheet: Canvas, row: float, x_um: float, half: tuple[float, float], keep: float) -> None:
    """Darken the inside of a choroidal vessel, relative to the stroma at its depth."""
    col = sheet.column(x_um)
    value = float(sheet.image[min(int(row), sheet.image.shape[0] - 1), col]) * keep
    sheet.ellipse(row, col, half, value)


def _add_hyaloid(canvas: Canvas, anatomy: Anatomy) -> None:
    """Add a detached posterior hyaloid floating above the retina, a common healthy sight."""
    generator = np.random.default_rng((anatomy.seed, 2))
    level = float(canvas.surfaces[Layer.RNFL].min())
    sway = anatomy.hyaloid_um * (1 + 0.18 * waves(generator, canvas.x_um, 1100.0))
    strength = 0.5 * np.clip(0.7 + 0.6 * waves(generator, canvas.x_um, 700.0), 0.0, 1.0)
    rows = (level - sway / canvas.row_um).astype(np.float32)
    canvas.line(rows, strength.astype(np.float32), 0.3, 7.0 / canvas.row_um)


def _add_retinal_vessels(canvas: Canvas, anatomy: Anatomy) -> None:
    """Add retinal vessels outside the foveal avascular zone, with the shadows they cast."""
    generator = np.random.default_rng((anatomy.seed, 3))
    height = canvas.image.shape[0]
    rows = np.arange(height, dtype=np.float32)[:, None]
    for _ in range(int(generator.integers(3, 9))):
        sign = 1.0 if generator.random() < 0.55 else -1.0
        centre = sign * float(generator.uniform(650.0, 3000.0))
        radius = float(generator.uniform(14.0, 42.0))
        darkness = float(generator.uniform(0.2, 0.62))
        columns = np.nonzero(np.abs(canvas.x_um - centre) < 3 * radius + canvas.col_um)[0]
        if columns.size == 0:
            continue
        col = canvas.column(centre)
        row = float(canvas.surfaces[Layer.RNFL, col] + radius / canvas.row_um * 0.6)
        half = max(radius / canvas.row_um, 1.2), max(0.8 * radius / canvas.col_um, 0.9)
        canvas.ellipse(row, col, half, 0.62)
        profile = np.exp(-(((canvas.x_um[columns] - centre) / radius) ** 2)) * darkness
        canvas.image[:, columns] *= 1 - profile * np.clip((rows - row - half[0]) / 5.0, 0.0, 1.0)


def _develop(
    canvas: Canvas, acquisition: Acquisition, generator: np.random.Generator
) -> np.ndarray:
    """Turn reflectivity into the exported picture: roll-off, speckle, noise floor, gain."""
    height, width = canvas.image.shape
    image = uniform_filter1d(canvas.image, 2, axis=1)
    rows = np.arange(height, dtype=np.float32)[:, None] * np.float32(canvas.row_um)
    across = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    light = (1 + acquisition.vignette * across) * (1 - 0.12 * across**2)
    light = light * np.exp(-rows / np.float32(acquisition.roll_off_um))
    fine, slow = waves(generator, canvas.x_um, 90.0), waves(generator, canvas.x_um, 600.0)
    drift = 1 + 0.05 * fine + 0.05 * slow
    grain = generator.standard_normal((height, width), dtype=np.float32)
    noise = uniform_filter1d(grain, 2, axis=1)  # speckle is wider than a pixel, noise is not
    noise *= np.float32(1.41 * acquisition.speckle)
    noise += 1
    image *= light
    image *= drift * noise
    grain *= np.float32(acquisition.floor * acquisition.grain)
    image += grain + np.float32(acquisition.floor)
    steps = np.clip(image * np.float32(1023 / 1.5), 0, 1023).astype(np.uint16)
    curve = acquisition.gain * (np.arange(1024) * 1.5 / 1023) ** acquisition.gamma
    return (np.clip(curve, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)[steps]
