"""What a phantom B-scan shows: the eye, its findings and their sizes in µm.

A :class:`Scan` is the one source of truth: the picture and the report are both derived from it, so
that a report never claims what the picture lacks. Lateral positions are µm from the foveal centre,
positive towards the optic disc (nasal), in right and left eyes alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from retfiner.common.errors import InputError

Kind = Literal[
    "drusen",
    "geographic_atrophy",
    "intraretinal_fluid",
    "subretinal_fluid",
    "pigment_epithelial_detachment",
    "subretinal_hyperreflective_material",
    "epiretinal_membrane",
    "vitreomacular_traction",
    "macular_hole",
    "rnfl_thinning",
]
Side = Literal["OD", "OS"]
Trend = Literal["", "new", "larger", "stable", "smaller"]

KINDS: tuple[Kind, ...] = get_args(Kind)

FIELD_WIDTH_UM = 6000.0
"""Width of a B-scan: the usual 6 mm line through the fovea."""
FIELD_DEPTH_UM = 880.0
"""Depth of a B-scan, as exported by devices that crop to the retina."""

# (smallest, largest) width and height in µm, at severity 0 and 1. The height of an epiretinal
# membrane is the swelling below it; that of traction, the elevation of the fovea; of a macular
# hole, the height of its lifted edge; of nerve-fibre loss, the tissue lost in per mille.
SIZES_UM: dict[Kind, tuple[tuple[float, float], tuple[float, float]]] = {
    "drusen": ((600.0, 3400.0), (26.0, 120.0)),
    "geographic_atrophy": ((500.0, 3300.0), (0.0, 0.0)),
    "intraretinal_fluid": ((400.0, 2800.0), (15.0, 260.0)),
    "subretinal_fluid": ((450.0, 2900.0), (24.0, 250.0)),
    "pigment_epithelial_detachment": ((450.0, 2400.0), (50.0, 360.0)),
    "subretinal_hyperreflective_material": ((400.0, 2000.0), (28.0, 180.0)),
    "epiretinal_membrane": ((1600.0, 5000.0), (8.0, 90.0)),
    "vitreomacular_traction": ((200.0, 1100.0), (50.0, 230.0)),
    "macular_hole": ((150.0, 700.0), (15.0, 70.0)),
    "rnfl_thinning": ((6000.0, 6000.0), (300.0, 850.0)),
}


LEAST_SEEN = 0.02
"""Severity below which a B-scan shows nothing of a finding that it passes at the edge."""


@dataclass(frozen=True)
class Finding:
    """One lesion of a B-scan.

    Args:
        kind: What it is, one of :data:`KINDS`.
        severity: From above 0 (just visible) to 1 (advanced).
        position_um: Lateral centre in µm from the fovea, positive nasally.
        seed: Fixes the lesion's shape, so that it keeps its character from visit to visit.
        subtype: ``serous`` or ``fibrovascular`` for a pigment epithelial detachment; ``diffuse``,
            ``nasal`` or ``temporal`` for nerve-fibre loss; empty otherwise.
        trend: Change since the previous visit; empty when there was none.
        y_um: How far above the fovea its centre lies, in µm.

    Raises:
        InputError: For an unknown kind or a severity outside (0, 1].
    """

    kind: Kind
    severity: float
    position_um: float
    seed: int
    subtype: str = ""
    trend: Trend = ""
    y_um: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("Unknown finding.", got=self.kind, expected=", ".join(KINDS))
        if not 0.0 < self.severity <= 1.0:
            raise InputError(
                f"The severity of {self.kind} is out of range.",
                got=self.severity,
                expected="above 0 and at most 1",
            )

    def stream(self, purpose: int) -> np.random.Generator:
        """Return a random stream of the lesion's own, the same at every visit."""
        return np.random.default_rng((self.seed, purpose))

    def at(self, y_um: float) -> Finding | None:
        """Return what a B-scan so far above the fovea shows of it: as high as wide, it tapers off.

        Nerve-fibre loss is the same everywhere.
        """
        if self.kind == "rnfl_thinning":
            return self
        ratio = 2 * (y_um - self.y_um) / self.width_um
        severity = self.severity * float(np.sqrt(max(0.0, 1 - ratio * ratio)))
        return replace(self, severity=severity) if severity >= LEAST_SEEN else None

    @property
    def width_um(self) -> float:
        """Lateral extent in µm (macular hole: aperture; traction: width of the adhesion)."""
        return self._size(0)

    @property
    def height_um(self) -> float:
        """Axial extent in µm; see :data:`SIZES_UM` for what it means for each kind."""
        return self._size(1)

    def _size(self, which: int) -> float:
        low, high = SIZES_UM[self.kind][which]
        own = self.stream(which).uniform(0.85, 1.15)
        return float(min(low + (high - low) * self.severity * own, high))


@dataclass(frozen=True)
class Anatomy:
    """A healthy eye's own shape, the same at every visit.

    Args:
        seed: Fixes vessels, choroid and the small undulations of the layers.
        scale: Overall retinal thickness, relative to the average.
        inner_scale: Nerve-fibre and ganglion-cell thickness, relative to the average.
        pit_um: Radius of the foveal pit in µm.
        curvature_um: How much the eye wall rises 3 mm beside the fovea, in µm.
        choroid_um: Choroidal thickness in µm.
        hyaloid_um: Height of a visible posterior hyaloid above the retina in µm; 0 when unseen.
        y_um: How far above the fovea the B-scan lies, in µm.
    """

    seed: int
    scale: float = 1.0
    inner_scale: float = 1.0
    pit_um: float = 520.0
    curvature_um: float = 50.0
    choroid_um: float = 260.0
    hyaloid_um: float = 0.0
    y_um: float = 0.0

    @classmethod
    def sample(cls, generator: np.random.Generator) -> Anatomy:
        """Draw an eye from the healthy population."""
        return cls(
            seed=int(generator.integers(2**31)),
            scale=float(np.clip(generator.normal(1.0, 0.04), 0.9, 1.1)),
            inner_scale=float(np.clip(generator.normal(1.0, 0.08), 0.82, 1.2)),
            pit_um=float(generator.uniform(400.0, 640.0)),
            curvature_um=float(np.clip(generator.gamma(1.6, 35.0), -20.0, 220.0)),
            choroid_um=float(np.clip(generator.normal(255.0, 70.0), 110.0, 430.0)),
            hyaloid_um=float(generator.uniform(90.0, 330.0)) if generator.random() < 0.2 else 0.0,
        )


@dataclass(frozen=True)
class Scan:
    """One horizontal B-scan through the fovea of one eye at one visit, or the volume around it.

    Args:
        patient_id: For example ``P0001``.
        eye: ``OD`` (right; nasal is on the right of the picture) or ``OS`` (left; mirrored).
        visit: Counted from 1.
        anatomy: The eye.
        findings: What is wrong with it; empty for a normal scan.
        resolved: Kinds that the previous visit showed and this one does not.
    """

    patient_id: str
    eye: Side
    visit: int
    anatomy: Anatomy
    findings: tuple[Finding, ...] = ()
    resolved: tuple[Kind, ...] = ()

    @property
    def name(self) -> str:
        """File stem, for example ``P0001_OD_v1``."""
        return f"{self.patient_id}_{self.eye}_v{self.visit}"

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of findings present."""
        return frozenset(finding.kind for finding in self.findings)

    def at(self, y_um: float) -> Scan:
        """Return the B-scan of the volume that lies so far above the fovea."""
        seen = (finding.at(y_um) for finding in self.findings)
        return replace(
            self,
            anatomy=replace(self.anatomy, y_um=y_um),
            findings=tuple(finding for finding in seen if finding is not None),
        )

    def get(self, kind: Kind) -> Finding | None:
        """Return the finding of this kind, or None."""
        return next((finding for finding in self.findings if finding.kind == kind), None)
