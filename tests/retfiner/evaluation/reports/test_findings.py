"""What the reader of reports makes of sentences as clinics write them, and of the phantoms' own."""

from __future__ import annotations

import numpy as np
import pytest

from retfiner.data.phantoms.cohort import make_cohort
from retfiner.data.phantoms.reports import describe
from retfiner.data.phantoms.scene import KINDS
from retfiner.evaluation.reports.findings import FINDINGS, read_findings, stated_findings

DR, GA, IRF, SRF, PED = (
    "drusen",
    "geographic_atrophy",
    "intraretinal_fluid",
    "subretinal_fluid",
    "pigment_epithelial_detachment",
)
SHRM, CNV = "subretinal_hyperreflective_material", "choroidal_neovascularisation"
ERM, VMT, MH, LH = "epiretinal_membrane", "vitreomacular_traction", "macular_hole", "lamellar_hole"
RNFL, EZ, HRF, HE = (
    "rnfl_thinning",
    "ellipsoid_zone_disruption",
    "hyperreflective_foci",
    "hard_exudates",
)

SENTENCES = [
    ("Several soft drusen subfoveally.", {DR}, set()),
    ("No drusen.", set(), {DR}),
    ("Drusen, no IRF or SRF.", {DR}, {IRF, SRF}),
    ("No obvious abnormality.", set(), set()),
    ("Normal macula, no intra- or subretinal fluid.", set(), {IRF, SRF}),
    ("normal macula, no intra - or subretinal fluid.", set(), {IRF, SRF}),
    ("Macula flat and dry, no PED.", set(), {IRF, SRF, PED}),
    ("RNFL thinning, macula dry.", {RNFL}, {IRF, SRF}),
    ("PED, macula otherwise dry.", {PED}, {IRF, SRF}),
    ("Drusenoid PED under the fovea.", {PED}, set()),
    ("Drusenoid elevations of the RPE.", {DR}, set()),
    ("Serous pigment epithelial detachment with subretinal fluid.", {PED, SRF}, set()),
    ("No subretinal fluid but intraretinal cysts.", {IRF}, {SRF}),
    ("No fluid, drusen nasal to the fovea.", {DR}, {IRF, SRF}),
    ("No drusen, fluid or geographic atrophy.", set(), {DR, IRF, SRF, GA}),
    ("No IRF, SRF or PED.", set(), {IRF, SRF, PED}),
    ("No fluid, no drusen, ERM present.", {ERM}, {IRF, SRF, DR}),
    ("Without evidence of macular oedema.", set(), {IRF}),
    ("Absence of subretinal fluid; epiretinal membrane.", {ERM}, {SRF}),
    ("Neither drusen nor atrophy of the RPE.", set(), {DR, GA}),
    ("SRF has resolved completely.", set(), {SRF}),
    ("IRF resolved since the last visit, SRF persists.", {SRF}, {IRF}),
    ("SRF no longer visible, drusen unchanged.", {DR}, {SRF}),
    ("Drusen not seen.", set(), {DR}),
    ("No change in drusen.", {DR}, set()),
    ("No significant increase of the subretinal fluid.", {SRF}, set()),
    ("GA with loss of the RPE, extent 1.5 mm.", {GA}, set()),
    ("Complete RPE and outer retinal atrophy, about 2.1 mm.", {GA}, set()),
    ("Cystoid macular edema with hard exudates.", {IRF, HE}, set()),
    ("Hyporeflective intraretinal cystoid spaces with retinal thickening.", {IRF}, set()),
    ("SHRM with disrupted ellipsoid zone.", {SHRM, EZ}, set()),
    ("Ellipsoid zone and RPE continuous.", set(), set()),
    ("Full-thickness macular hole, no SRF.", {MH}, {SRF}),
    ("full - thickness macular hole , aperture 400 µm .", {MH}, set()),
    ("Lamellar macular hole.", {LH}, set()),
    ("Macular pseudohole with ERM.", {LH, ERM}, set()),
    ("VMT with marked elevation of the fovea.", {VMT}, set()),
    ("Normal OCT, RPE regular, no ERM or VMT.", set(), {ERM, VMT}),
    ("Thinning of the nerve fibre and ganglion cell layers.", {RNFL}, set()),
    ("Nerve fiber layer thinning, glaucomatous pattern.", {RNFL}, set()),
    ("RNFL within normal limits.", set(), set()),
    ("Active CNV with fluid.", {CNV}, set()),
    ("Choroidal neovascularization with SRF and hyperreflective foci.", {CNV, SRF, HRF}, set()),
    ("Epiretinal gliosis without distortion, no oedema.", {ERM}, {IRF}),
    ("Neurosensory detachment 120 µm, PED.", {SRF, PED}, set()),
    ("No SRF temporally. SRF nasally.", {SRF}, set()),
    ("No fluid with large drusen.", {DR}, {IRF, SRF}),
    ("Sub-RPE drusen up to 65 µm, no GA.", {DR}, {GA}),
    ("Macular pucker, negative for vitreomacular traction.", {ERM}, {VMT}),
    ("", set(), set()),
]


@pytest.mark.parametrize(("text", "stated", "denied"), SENTENCES)
def test_sentences(text, stated, denied):
    found = read_findings(text)
    assert {name for name, status in found.items() if status == "stated"} == stated
    assert {name for name, status in found.items() if status == "denied"} == denied
    assert stated_findings(text) == stated


def test_the_sentences_cover_every_finding():
    assert {name for _, stated, _ in SENTENCES for name in stated} == set(FINDINGS)
    assert len(SENTENCES) >= 40


def test_phantom_reports_are_read_as_they_were_meant():
    """The scenes are the truth: what was drawn is what is read."""
    generator = np.random.default_rng(5)
    scans = make_cohort(120, seed=3)
    reports = [describe(scan, generator) for scan in scans]
    wrong = [
        (report, sorted(scan.kinds))
        for scan, report in zip(scans, reports, strict=True)
        if stated_findings(report) & set(KINDS) != scan.kinds
    ]
    assert wrong == []
    assert len(set(reports)) > 150
    denied = [name for r in reports for name, how in read_findings(r).items() if how == "denied"]
    assert len(denied) > 100
