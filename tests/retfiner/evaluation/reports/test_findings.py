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
    ("No ERM, VMT, or macular hole.", set(), {ERM, VMT, MH}),
    ("No ERM, VMT or macular hole.", set(), {ERM, VMT, MH}),
    ("No drusen, no fluid, no ERM.", set(), {DR, IRF, SRF, ERM}),
    ("No IRF, SRF, PED, or hard exudates.", set(), {IRF, SRF, PED, HE}),
    ("No ERM, but VMT is present.", {VMT}, {ERM}),
    ("No fluid, ERM, or drusen; lamellar hole.", {LH}, {IRF, SRF, ERM, DR}),
    ("Neither ERM nor VMT.", set(), {ERM, VMT}),
    ("No cystoid spaces and no subretinal fluid.", set(), {IRF, SRF}),
    ("Resolved subretinal fluid.", set(), {SRF}),
    ("Resolved macular oedema, drusen remain.", {DR}, {IRF}),
    ("Resolution of the subretinal fluid.", set(), {SRF}),
    ("Interval resolution of IRF with residual drusen.", {DR}, {IRF}),
    ("Complete resolution of SRF and persistent PED.", {PED}, {SRF}),
    ("Partial resolution of the subretinal fluid.", {SRF}, set()),
    ("The subretinal fluid has fully resolved.", set(), {SRF}),
    ("The subretinal fluid has not resolved.", {SRF}, set()),
    ("SRF partially resolved.", {SRF}, set()),
    ("SRF incompletely resolved, PED unchanged.", {SRF, PED}, set()),
    ("Resolving macular oedema.", {IRF}, set()),
    ("IRF is resolved, PED persists.", {PED}, {IRF}),
    ("The macular hole is closed; SRF has disappeared.", set(), {MH, SRF}),
    ("No SRF, IRF.", set(), {SRF, IRF}),
    ("No SRF, IRF and PED.", set(), {SRF, IRF, PED}),
    ("No SRF, small ERM.", {ERM}, {SRF}),
    ("Absence of drusen, ERM, and macular hole.", set(), {DR, ERM, MH}),
    ("SRF: no, ERM: yes.", {ERM}, {SRF}),
    ("ERM (-), SRF (+).", {SRF}, {ERM}),
    ("SRF is gone, IRF cleared.", set(), {SRF, IRF}),
    ("CNV ruled out.", set(), {CNV}),
    ("CNV is ruled out by the scan.", set(), {CNV}),
    ("CNV cannot be ruled out.", {CNV}, set()),
    ("A small CNV cannot be excluded.", {CNV}, set()),
    ("Macular hole was excluded.", set(), {MH}),
    ("Rule out CNV.", set(), set()),
    ("Referred to rule out macular hole, drusen seen.", {DR}, set()),
    ("R/o CME.", set(), set()),
    ("History of CNV, now dry macula.", set(), {IRF, SRF}),
    ("History of macular oedema; no fluid today.", set(), {IRF, SRF}),
    ("Known history of ERM with drusen today.", {DR}, set()),
    ("Previous CNV, subretinal fluid nasally.", {SRF}, set()),
    ("Status post macular hole, ERM present.", {ERM}, set()),
    ("S/p CNV, no SRF.", set(), {SRF}),
    ("Prior serous pigment epithelial detachment.", set(), set()),
    ("Previously seen SRF now absent, drusen stable.", {DR}, set()),
    ("Screening for diabetic macular oedema, hard exudates nasally.", {HE}, set()),
    ("Without fluid.", set(), {IRF, SRF}),
    ("Drusen without subretinal fluid.", {DR}, {SRF}),
    ("Geographic atrophy without CNV.", {GA}, {CNV}),
    ("ERM without macular pseudohole.", {ERM}, {LH}),
    ("CNV without exudation.", {CNV}, {IRF, SRF}),
    ("VMT without a macular hole, SRF beneath.", {VMT, SRF}, {MH}),
    ("PED, but without fluid.", {PED}, {IRF, SRF}),
    ("Retina free of fluid.", set(), {IRF, SRF}),
    ("Negative for CNV.", set(), {CNV}),
    ("Lacks hyperreflective foci.", set(), {HRF}),
    ("The scan does not show subretinal fluid.", set(), {SRF}),
    ("The scan no longer shows SRF.", set(), {SRF}),
    ("No longer any intraretinal fluid, PED flat.", {PED}, {IRF}),
    ("SRF not identified.", set(), {SRF}),
    ("SRF: none.", set(), {SRF}),
    ("IRF: absent, SRF: present.", {SRF}, {IRF}),
    ("ERM: negative.", set(), {ERM}),
    ("Drusen were not observed.", set(), {DR}),
    ("Hard exudates are no longer visible.", set(), {HE}),
    ("Macular hole not demonstrated.", set(), {MH}),
    ("ERM is absent, VMT is present.", {VMT}, {ERM}),
    ("Drusen are present, fluid is absent.", {DR}, {IRF, SRF}),
    ("Possible CNV.", {CNV}, set()),
    ("Suspected lamellar hole.", {LH}, set()),
    ("Questionable SRF nasally.", {SRF}, set()),
    ("Persistent subretinal fluid.", {SRF}, set()),
    ("Increase of the intraretinal fluid.", {IRF}, set()),
    ("No increase in IRF or SRF.", {IRF, SRF}, set()),
    ("No interval change of the PED.", {PED}, set()),
    ("No progression of geographic atrophy.", {GA}, set()),
    ("No relevant improvement of the macular oedema.", {IRF}, set()),
    ("Stable drusen, no new fluid.", {DR}, {IRF, SRF}),
    ("Drusen and geographic atrophy.", {DR, GA}, set()),
    ("Confluent drusen with overlying hyperreflective foci.", {DR, HRF}, set()),
    ("Reticular pseudodrusen superiorly.", {DR}, set()),
    ("Macula dry, ERM nasally.", {ERM}, {IRF, SRF}),
    ("Fovea is dry.", set(), {IRF, SRF}),
    ("Diabetic macular edema with cystoid spaces and exudates.", {IRF, HE}, set()),
    ("Cystoid changes temporally, no serous detachment of the fovea.", {IRF}, {SRF}),
    ("Neuroretinal detachment under the fovea.", {SRF}, set()),
    ("Fibrovascular PED with SHRM.", {PED, SHRM}, set()),
    ("Type 1 MNV with shallow PED.", {CNV, PED}, set()),
    ("Loss of the ellipsoid zone centrally.", {EZ}, set()),
    ("EZ disruption and hyperreflective dots.", {EZ, HRF}, set()),
    ("Attenuated EZ without atrophy of the RPE.", {EZ}, {GA}),
    ("RNFL thinning inferiorly, no macular oedema.", {RNFL}, {IRF}),
    ("RNFL defect superiorly.", {RNFL}, set()),
    ("FTMH with cystic changes at its edge.", {MH, IRF}, set()),
    ("Lamellar macular hole, no full-thickness macular hole.", {LH}, {MH}),
    ("Epiretinal fibrosis with macular pseudohole.", {ERM, LH}, set()),
    ("Vitreomacular traction released, no macular hole.", {VMT}, {MH}),
    ("cRORA nasal to the fovea.", {GA}, set()),
    ("SRF and IRF, neither ERM nor VMT.", {SRF, IRF}, {ERM, VMT}),
    ("Subretinal hyperreflective material; no intra- and subretinal fluid.", {SHRM}, {IRF, SRF}),
    ("Never any fluid.", set(), {IRF, SRF}),
    ("No evidence of CNV, drusen, or SRF.", set(), {CNV, DR, SRF}),
    ("No signs of macular oedema despite hard exudates.", {HE}, {IRF}),
    ("Except for a small ERM no pathology.", {ERM}, set()),
    ("Fluid absent. Drusen present.", {DR}, {IRF, SRF}),
    ("Disappearance of the SRF, IRF persists.", {IRF}, {SRF}),
    ("Macular pucker was not found.", set(), {ERM}),
    ("Unremarkable foveal contour, layers intact.", set(), set()),
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
    assert len(SENTENCES) >= 150


def test_precision_and_recall_over_all_sentences(capsys):
    """By finding and status; what a careful reader says is the truth."""
    truth, found = set(), set()
    for number, (text, stated, denied) in enumerate(SENTENCES):
        truth |= {(number, name, "stated") for name in stated}
        truth |= {(number, name, "denied") for name in denied}
        found |= {(number, name, status) for name, status in read_findings(text).items()}
    right = len(truth & found)
    with capsys.disabled():
        print(
            f"\n{len(SENTENCES)} sentences, {len(truth)} mentions: precision "
            f"{right / len(found):.3f}, recall {right / len(truth):.3f}"
        )
    assert (right / len(found), right / len(truth)) == (1, 1)


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
