"""The healthy retina as a stack of layers, and the working state that lesions deform.

Every column of a B-scan is a stack that stands on Bruch's membrane: the thickness of each layer in
µm, and its reflectivity on the display's scale from 0 to 1. Surfaces follow from thicknesses, so
that whatever a lesion does, layers keep their order and never cross.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from retfiner.data.phantoms.scene import FIELD_WIDTH_UM, Anatomy, Side

Array = npt.NDArray[np.float32]


class Layer(IntEnum):
    """Layers from the vitreous outwards; surface ``k`` is the upper boundary of layer ``k``.

    Four of them are potential spaces, empty in health: subretinal fluid and subretinal material
    above the pigment epithelium, drusen and a detachment's content below it.
    """

    VITREOUS = 0
    RNFL = 1
    GCIPL = 2
    INL = 3
    OPL = 4
    ONL = 5
    ELM = 6
    MYOID = 7
    EZ = 8
    OUTER_SEGMENTS = 9
    SUBRETINAL = 10
    MATERIAL = 11
    RPE = 12
    DRUSEN = 13
    SUB_RPE = 14
    BRUCH = 15
    CHOROID = 16


# Relative reflectivity on a log-compressed display: nerve fibres, plexiform layers, ellipsoid zone
# and pigment epithelium are bright, nuclear layers dark.
REFLECTIVITY: dict[Layer, float] = {
    Layer.VITREOUS: 0.02,
    Layer.RNFL: 0.60,
    Layer.GCIPL: 0.40,
    Layer.INL: 0.275,
    Layer.OPL: 0.39,
    Layer.ONL: 0.19,
    Layer.ELM: 0.33,
    Layer.MYOID: 0.22,
    Layer.EZ: 0.66,
    Layer.OUTER_SEGMENTS: 0.36,
    Layer.SUBRETINAL: 0.05,
    Layer.MATERIAL: 0.58,
    Layer.RPE: 0.80,
    Layer.DRUSEN: 0.45,
    Layer.SUB_RPE: 0.36,
    Layer.BRUCH: 0.60,
    Layer.CHOROID: 0.0,
}


def healthy_thickness(anatomy: Anatomy, x_um: Array) -> Array:
    """Return (17, W), the thickness in µm of every :class:`Layer` of a healthy eye.

    Vitreous, choroid and the four potential spaces have none. The averages follow published
    normative OCT values: about 230 µm at the foveal centre, 320 to 340 µm at the parafoveal rim,
    nerve fibres thin temporally and thick towards the disc.
    """
    distance = np.hypot(x_um, np.float32(anatomy.y_um))  # from the fovea
    slope = np.exp(-((distance / anatomy.pit_um) ** 2))  # 1 in the pit, 0 beyond its rim
    rim = np.exp(-(((distance - 1.6 * anatomy.pit_um) / 1500.0) ** 2))
    nasal = 1.0 / (1.0 + np.exp(-x_um / 500.0))
    eccentric = np.clip(distance / 3000.0, 0.0, 1.2)
    inner = anatomy.inner_scale
    layers = np.zeros((len(Layer), x_um.size), np.float32)
    layers[Layer.RNFL] = 3 + (1 - slope) * inner * (13 + eccentric * (10 + 30 * nasal))
    layers[Layer.GCIPL] = 3 + (1 - slope**0.8) * inner * (46 + 38 * rim)
    layers[Layer.INL] = 2 + (1 - slope**0.7) * (31 + 9 * rim)
    layers[Layer.OPL] = 6 + (1 - slope**0.6) * 23
    layers[Layer.ONL] = 58 + 42 * np.exp(-((distance / 700.0) ** 2)) + 10 * rim
    layers[Layer.ELM] = 7
    layers[Layer.MYOID] = 17 + 9 * np.exp(-((distance / 450.0) ** 2))
    layers[Layer.EZ] = 14
    layers[Layer.OUTER_SEGMENTS] = 21 + 16 * np.exp(-((distance / 400.0) ** 2))
    layers[Layer.RPE] = 19
    layers[Layer.BRUCH] = 4
    layers *= anatomy.scale
    return layers


@dataclass
class Tissue:
    """The working state of one B-scan, column by column; lesions change it in place.

    Args:
        x_um: (W,) lateral position in µm from the fovea, nasal positive.
        thickness: (17, W) in µm.
        reflectivity: (17, W) from 0 to 1.
        transmission: (W,) factor on what lies below Bruch's membrane; above 1 where the pigment
            epithelium is lost, below 1 under shadowing material.
        roughness: (17, W) strength of the coarse texture of each layer.
    """

    x_um: Array
    thickness: Array
    reflectivity: Array
    transmission: Array
    roughness: Array

    def surfaces(self) -> Array:
        """Return (17, W) heights in µm above the outer border of Bruch's membrane."""
        return np.cumsum(self.thickness[::-1], axis=0)[::-1].copy()

    def blend(self, layer: Layer, value: float, weight: Array) -> None:
        """Move a layer's reflectivity towards ``value``, all the way where ``weight`` is 1."""
        row = self.reflectivity[layer]
        self.reflectivity[layer] = row + (value - row) * weight

    def squeeze(self, layer: Layer, amount_um: Array, floor: float = 0.25) -> None:
        """Thin a layer by up to ``amount_um``, leaving at least the fraction ``floor`` of it."""
        row = self.thickness[layer]
        self.thickness[layer] = np.maximum(row - amount_um, row * floor)


def lateral_axis(eye: Side, width: int, fovea_shift_um: float = 0.0) -> Array:
    """Return the (W,) lateral position of each column in µm from the fovea, nasal positive.

    Nasal is on the right in ``OD``, on the left in ``OS``. The fovea lies so far right of the
    picture's middle.
    """
    centres = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    x_um: Array = (centres * FIELD_WIDTH_UM - fovea_shift_um).astype(np.float32)
    return x_um if eye == "OD" else -x_um


def healthy_tissue(anatomy: Anatomy, x_um: Array) -> Tissue:
    """Build the healthy stack of an eye on a lateral axis, with small undulations of its own."""
    thickness = healthy_thickness(anatomy, x_um)
    generator = np.random.default_rng(anatomy.seed)
    knots = np.linspace(-4000.0, 4000.0, 65)
    wobble = gaussian_filter1d(generator.standard_normal((len(Layer), knots.size)), 1.0, axis=1)
    for layer in (Layer.RNFL, Layer.GCIPL, Layer.INL, Layer.OPL, Layer.ONL, Layer.RPE):
        thickness[layer] *= 1 + 0.09 * np.interp(x_um, knots, wobble[layer])
    values = np.array([REFLECTIVITY[layer] for layer in Layer], np.float32)
    reflectivity = np.repeat(values[:, None], x_um.size, axis=1)
    # Henle's fibres brighten where the beam meets them squarely, on one side of the fovea.
    lean = np.float32(generator.uniform(-0.25, 0.25))
    reflectivity[Layer.ONL] *= 1 + lean * np.tanh(x_um / 700.0)
    reflectivity[Layer.RNFL] *= 0.86 + 0.14 * np.clip(thickness[Layer.RNFL] / 30.0, 0.0, 1.6)
    roughness = np.full_like(thickness, 0.06)
    return Tissue(x_um, thickness, reflectivity, np.ones_like(x_um), roughness)


def central_thickness_um(tissue: Tissue) -> float:
    """Return the central macular thickness: mean from vitreous to Bruch's over the central 1 mm."""
    return float(tissue.surfaces()[Layer.RNFL][np.abs(tissue.x_um) <= 500.0].mean())
