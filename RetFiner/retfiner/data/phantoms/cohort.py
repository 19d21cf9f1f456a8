"""Who the phantoms are: patients, eyes, visits, and what happens to their findings over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from retfiner.data.phantoms.scene import Anatomy, Finding, Kind, Scan, Side, Trend

Generator = np.random.Generator
Recipe = Callable[[Generator], tuple[Finding, ...]]

SIDES: tuple[Side, Side] = ("OD", "OS")
NEOVASCULAR: tuple[Kind, ...] = (
    "subretinal_fluid",
    "intraretinal_fluid",
    "pigment_epithelial_detachment",
    "subretinal_hyperreflective_material",
)
"""What neovascular AMD shows, and what answers to its treatment, whatever it comes from."""
_COURSE, _HEIGHT = 0, 2  # purposes of the cohort's random streams


def stream(seed: int, *purpose: int) -> Generator:
    """Return the random stream of one purpose (a patient, an image), independent of all others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def sample_finding(
    kind: Kind, generator: Generator, position_um: float | None = None, least: float = 0.12
) -> Finding:
    """Draw a finding of at least a severity; mild ones are the most frequent.

    By default it lies where the kind usually does.
    """
    severity = least + (1 - least) * float(generator.beta(1.2, 1.6))
    spread = {"macular_hole": 35.0, "vitreomacular_traction": 60.0, "rnfl_thinning": 0.0}
    usual = float(np.clip(generator.normal(0.0, spread.get(kind, 520.0)), -1300.0, 1300.0))
    seed = int(generator.integers(2**31))
    draw = float(generator.random())
    subtype = ""
    if kind == "pigment_epithelial_detachment":
        subtype = "serous" if draw < 0.4 else "fibrovascular"
    elif kind == "rnfl_thinning":
        subtype = "diffuse" if draw < 0.5 else "nasal" if draw < 0.75 else "temporal"
    where = usual if position_um is None else position_um
    return Finding(kind, max(severity, 0.02), where, seed, subtype)


def recipe_of(kind: Kind, *extras: tuple[Kind, float]) -> Recipe:
    """Return a recipe: one finding, and each extra with its probability."""

    def recipe(generator: Generator) -> tuple[Finding, ...]:
        findings = [sample_finding(kind, generator)]
        for extra, probability in extras:
            if generator.random() < probability:
                findings.append(sample_finding(extra, generator))
        return tuple(findings)

    return recipe


def healthy(generator: Generator) -> tuple[Finding, ...]:
    """Return no finding at all."""
    return ()


def neovascular(generator: Generator) -> tuple[Finding, ...]:
    """Draw neovascular AMD: two to four of fluid, detachment and material around one lesion."""
    centre = float(np.clip(generator.normal(0.0, 450.0), -1000.0, 1000.0))
    chosen = generator.permutation(4)[: int(generator.choice([2, 2, 3, 3, 4]))]
    findings = []
    for index in sorted(int(i) for i in chosen):
        place = centre + float(generator.normal(0.0, 220.0))
        finding = sample_finding(NEOVASCULAR[index], generator, place)
        if finding.subtype == "serous" and generator.random() < 0.6:
            finding = replace(finding, subtype="fibrovascular")
        findings.append(finding)
    if generator.random() < 0.4:
        findings.append(sample_finding("drusen", generator))
    return tuple(findings)


def macular_hole(generator: Generator) -> tuple[Finding, ...]:
    """Draw a full-thickness macular hole, often with cystic edges."""
    hole = sample_finding("macular_hole", generator)
    if generator.random() < 0.5:
        return (hole,)
    return (hole, sample_finding("intraretinal_fluid", generator, hole.position_um, least=0.5))


# Disease of a clinic's patients: share of patients, how an affected eye looks.
DISEASES: dict[str, tuple[float, Recipe]] = {
    "normal": (0.30, healthy),
    "dry_amd": (0.13, recipe_of("drusen")),
    "atrophic_amd": (0.08, recipe_of("geographic_atrophy", ("drusen", 0.45))),
    "neovascular_amd": (0.14, neovascular),
    "diabetic_oedema": (0.09, recipe_of("intraretinal_fluid", ("subretinal_fluid", 0.2))),
    "central_serous": (0.05, recipe_of("subretinal_fluid", ("pigment_epithelial_detachment", 0.2))),
    "serous_detachment": (0.03, recipe_of("pigment_epithelial_detachment", ("drusen", 0.3))),
    "epiretinal_membrane": (0.06, recipe_of("epiretinal_membrane", ("intraretinal_fluid", 0.15))),
    "traction": (0.04, recipe_of("vitreomacular_traction", ("intraretinal_fluid", 0.25))),
    "macular_hole": (0.03, macular_hole),
    "glaucoma": (0.05, recipe_of("rnfl_thinning")),
}


def add_comorbidity(
    findings: tuple[Finding, ...],
    allowed: tuple[Kind, ...],
    generator: Generator,
    probability: float,
) -> tuple[Finding, ...]:
    """Sometimes add one finding of an allowed kind that is not there yet."""
    kinds = {finding.kind for finding in findings}
    drawn = generator.random() < probability
    kind = allowed[int(generator.integers(len(allowed)))]
    if not drawn or kind in kinds:
        return findings
    least = 0.5 if "macular_hole" in kinds and kind == "intraretinal_fluid" else 0.12
    return (*findings, sample_finding(kind, generator, least=least))


def progress(
    findings: tuple[Finding, ...], generator: Generator, may_resolve: bool = True
) -> tuple[tuple[Finding, ...], tuple[Kind, ...]]:
    """Return an eye's findings at its next visit, each with its trend, and what has resolved.

    Fluid, detachment and material answer to treatment, or not; everything else holds or worsens.
    """
    now: list[Finding] = []
    resolved: list[Kind] = []
    for finding in findings:
        luck, factor = float(generator.random()), 1.0
        if finding.kind in NEOVASCULAR and luck < 0.6:
            factor = float(generator.uniform(0.15, 0.75))
        elif luck < 0.8 and finding.kind != "macular_hole":
            factor = float(generator.uniform(1.2, 1.6))
        severity = min(finding.severity * factor, 1.0)
        if severity < 0.1 and may_resolve:
            resolved.append(finding.kind)
            continue
        severity = max(severity, min(finding.severity, 0.1))
        ratio = severity / finding.severity
        trend: Trend = "smaller" if ratio < 0.85 else "larger" if ratio > 1.15 else "stable"
        now.append(replace(finding, severity=severity, trend=trend))
    return tuple(now), tuple(resolved)


def follow(
    patient_id: str, eye: Side, findings: tuple[Finding, ...], visits: int, generator: Generator
) -> list[Scan]:
    """Follow one eye over a number of visits."""
    anatomy = Anatomy.sample(generator)
    scans = [Scan(patient_id, eye, 1, anatomy, findings)]
    for visit in range(2, visits + 1):
        findings, resolved = progress(findings, generator)
        if {finding.kind for finding in findings} == {"drusen"} and generator.random() < 0.12:
            converted = replace(sample_finding("subretinal_fluid", generator), trend="new")
            findings = (converted, *findings)
        scans.append(Scan(patient_id, eye, visit, anatomy, findings, resolved))
    return scans


def make_patient(patient_id: str, generator: Generator) -> list[Scan]:
    """Draw a patient of the clinic: a disease, one or two eyes, one or more visits each."""
    shares = np.array([share for share, _ in DISEASES.values()])
    recipes = [recipe for _, recipe in DISEASES.values()]
    recipe = recipes[int(generator.choice(len(recipes), p=shares / shares.sum()))]
    first = int(generator.integers(2))
    eyes = (SIDES[first], SIDES[1 - first]) if generator.random() < 0.7 else (SIDES[first],)
    most = 2 if recipe is healthy else 4
    scans = []
    for order, eye in enumerate(eyes):
        affected = order == 0 or generator.random() < 0.45
        findings = recipe(generator) if affected else ()
        if findings:
            findings = _with_company(findings, generator)
        visits = int(generator.integers(1, most + 1)) if findings else int(generator.integers(1, 3))
        scans += follow(patient_id, eye, findings, visits, generator)
    return scans


def _with_company(findings: tuple[Finding, ...], generator: Generator) -> tuple[Finding, ...]:
    kinds = {finding.kind for finding in findings}
    company: tuple[Kind, ...] = ("epiretinal_membrane", "drusen", "rnfl_thinning")
    if kinds & {"vitreomacular_traction", "macular_hole"}:
        company = ("drusen", "rnfl_thinning")
    return add_comorbidity(findings, company, generator, 0.15)


def make_exams(n_patients: int, seed: int, reach_um: float) -> list[Scan]:
    """Draw the first visit of each eye, its findings at heights of up to ``reach_um``.

    Holes and traction are of the fovea; nerve-fibre loss is everywhere.
    """
    exams = []
    for number in range(1, n_patients + 1):
        generator = stream(seed, _HEIGHT, number)
        for scan in make_patient(f"P{number:04d}", stream(seed, _COURSE, number)):
            if scan.visit == 1:
                findings = (_at_height(finding, generator, reach_um) for finding in scan.findings)
                exams.append(replace(scan, findings=tuple(findings)))
    return exams


def _at_height(finding: Finding, generator: Generator, reach_um: float) -> Finding:
    height = float(generator.uniform(-reach_um, reach_um))
    is_fixed = finding.kind in ("macular_hole", "vitreomacular_traction", "rnfl_thinning")
    return finding if is_fixed else replace(finding, y_um=height)


def make_cohort(n_patients: int, seed: int) -> list[Scan]:
    """Draw a clinic's patients: about 3.5 scans each, both eyes and several visits.

    A patient depends on the seed and the patient's number alone: a larger cohort begins with the
    patients of a smaller one.
    """
    scans = []
    for number in range(1, n_patients + 1):
        scans += make_patient(f"P{number:04d}", stream(seed, _COURSE, number))
    return scans
