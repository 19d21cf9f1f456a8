"""Reports are true, varied, and as repetitive as a clinic's."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from retfiner.data.phantoms.cohort import make_cohort, stream
from retfiner.data.phantoms.optics import draw
from retfiner.data.phantoms.reports import describe
from retfiner.data.phantoms.scene import KINDS, Anatomy, Finding, Scan

TERMS = {
    "drusen": r"drusen",
    "geographic_atrophy": r"geographic atrophy|\bga\b|outer retinal atrophy",
    "intraretinal_fluid": r"\birf\b|intraretinal|intra- |cystoid|oedema|(?<!retinal )fluid",
    "subretinal_fluid": r"\bsrf\b|subretinal fluid|neurosensory|oedema|(?<!retinal )fluid",
    "pigment_epithelial_detachment": r"\bped\b|pigment epithelial detachment",
    "subretinal_hyperreflective_material": r"\bshrm\b|subretinal hyperreflective",
    "epiretinal_membrane": r"\berm\b|epiretinal",
    "vitreomacular_traction": r"\bvmt\b|vitreomacular traction",
    "macular_hole": r"\bftmh\b|macular hole",
    "rnfl_thinning": r"rnfl thin|nerve fibre",
}
# Words that stand for a finding only where it is affirmed, or only where it is denied.
AFFIRMED = TERMS | {
    "intraretinal_fluid": r"\birf\b|intraretinal|cystoid",
    "subretinal_fluid": r"\bsrf\b|subretinal fluid|neurosensory det",
}
NEGATION = re.compile(r"\b(no|without|not)\b")


def read(report):
    """Return what a report affirms and what it denies: a negation reaches to the full stop."""
    affirmed, denied = set(), set()
    for sentence in report.lower().split("."):
        negation = NEGATION.search(sentence)
        cut = 0 if "resolved" in sentence else negation.start() if negation else len(sentence)
        for kind in KINDS:
            if re.search(AFFIRMED[kind], sentence[:cut]):
                affirmed.add(kind)
            if re.search(TERMS[kind], sentence[cut:]):
                denied.add(kind)
    return affirmed, denied


@pytest.fixture(scope="module")
def archive():
    scans = make_cohort(430, seed=0)
    return scans, [describe(scan, stream(0, 99, i)) for i, scan in enumerate(scans)]


def test_the_reader_reads():
    assert read("IRF, no SRF.") == ({"intraretinal_fluid"}, {"subretinal_fluid"})
    assert read("Soft drusen. No intra- or subretinal fluid.") == (
        {"drusen"},
        {"intraretinal_fluid", "subretinal_fluid"},
    )
    assert read("SRF resolved since the last visit.") == (set(), {"subretinal_fluid"})


def test_reports_affirm_all_that_is_present_and_nothing_else(archive):
    for scan, report in zip(*archive, strict=True):
        assert read(report)[0] == scan.kinds, report


def test_reports_deny_only_what_is_absent(archive):
    denials = 0
    for scan, report in zip(*archive, strict=True):
        denied = read(report)[1]
        denials += bool(denied)
        assert not denied & scan.kinds, report
    assert 0.3 < denials / len(archive[0]) < 0.9


def test_reports_are_short_and_begin_with_what_matters(archive):
    for scan, report in zip(*archive, strict=True):
        words = report.split()
        assert 3 <= len(words) <= 40, report
        if scan.findings:
            assert read(" ".join(words[:12]).split(". ")[0])[0], report


def test_as_many_reports_repeat_another_as_in_an_archive(archive):
    counts = Counter(archive[1])
    total = len(archive[1])
    repeated = sum(count for count in counts.values() if count > 1) / total
    assert 0.25 <= repeated <= 0.50
    assert counts.most_common(1)[0][0] == "No obvious abnormality."
    assert 0.08 <= counts["No obvious abnormality."] / total <= 0.13
    assert len(counts) > 800


def test_many_scans_are_normal_and_every_finding_occurs(archive):
    scans = archive[0]
    assert 0.3 < sum(not scan.findings for scan in scans) / len(scans) < 0.5
    frequency = Counter(kind for scan in scans for kind in scan.kinds)
    assert set(frequency) == set(KINDS)
    assert min(frequency.values()) >= 20


def test_measured_heights_and_widths_are_those_of_the_drawing(archive):
    checked = 0
    for scan, report in zip(*archive, strict=True):
        hole = scan.get("macular_hole")
        if hole and (found := re.search(r"(?:aperture|diameter|hole,) (\d+) µm", report)):
            assert int(found[1]) == pytest.approx(hole.width_um, abs=5.1)
            checked += 1
        detachment = scan.get("pigment_epithelial_detachment")
        if detachment and (found := re.search(r"PED[^.]*?(\d+) µm high", report)):
            assert int(found[1]) == pytest.approx(detachment.height_um, abs=2.6)
            checked += 1
        atrophy = scan.get("geographic_atrophy")
        if atrophy and (found := re.search(r"([\d.]+) mm", report)):
            assert float(found[1]) * 1000 == pytest.approx(atrophy.width_um, abs=51)
            checked += 1
    assert checked > 60


def test_reported_central_thickness_is_that_of_the_picture(archive):
    checked = 0
    for index, (scan, report) in enumerate(zip(*archive, strict=True)):
        found = re.search(r"(?:CMT|CST|entral thickness) (\d+) µm", report)
        if found and checked < 40:
            drawn = draw(scan, np.random.default_rng(index), (64, 96)).central_thickness_um
            assert int(found[1]) == pytest.approx(drawn, rel=0.05)
            checked += 1
    assert checked == 40


def test_laterality_is_that_of_the_eye(archive):
    for scan, report in zip(*archive, strict=True):
        places = [finding.position_um for finding in scan.findings]
        nerve_fibres = scan.get("rnfl_thinning")
        if nerve_fibres and nerve_fibres.subtype in ("nasal", "temporal"):
            places.append(500.0 if nerve_fibres.subtype == "nasal" else -500.0)
        if "nasal" in report:
            assert max(places) > 0, report
        if "temporal" in report:
            assert min(places) < 0, report


@pytest.mark.parametrize(
    ("trend", "words"),
    [
        ("smaller", "reduced|less|improved"),
        ("larger", "increased|more|progressive"),
        ("new", "new"),
    ],
)
def test_changes_between_visits_are_reported(trend, words):
    finding = Finding("subretinal_fluid", 0.5, 0.0, 1, trend=trend)
    scan = Scan("P", "OD", 2, Anatomy(seed=1), (finding,))
    reports = [describe(scan, np.random.default_rng(seed)) for seed in range(60)]
    assert sum(bool(re.search(words, report)) for report in reports) > 40


def test_visits_follow_from_one_another():
    """Trends agree with severities, and an eye keeps its anatomy and its lesions' character."""
    seen = Counter()
    scans = make_cohort(200, seed=5)
    for before, after in pairwise(scans):
        if (before.patient_id, before.eye) != (after.patient_id, after.eye):
            continue
        assert after.visit == before.visit + 1
        assert after.anatomy == before.anatomy
        for kind in after.resolved:
            assert before.get(kind) is not None
            assert after.get(kind) is None
            seen["resolved"] += 1
        for finding in after.findings:
            was = before.get(finding.kind)
            if finding.trend == "new":
                assert was is None
            else:
                assert was.seed == finding.seed
                ratio = finding.severity / was.severity
                expected = "smaller" if ratio < 0.85 else "larger" if ratio > 1.15 else "stable"
                assert finding.trend == expected
            seen[finding.trend] += 1
    assert all(seen[trend] > 2 for trend in ("resolved", "smaller", "larger", "stable", "new"))
