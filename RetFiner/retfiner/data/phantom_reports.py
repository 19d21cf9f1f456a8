"""Reports as clinicians dictate them: short, abbreviated, what matters first.

A report mentions every finding of its scan and denies only what is absent; its measurements are
those of the drawing. Many normal scans share their wording to the letter, as in any archive.
"""

from __future__ import annotations

import numpy as np

from retfiner.data.phantom_anatomy import bare, central_thickness_um
from retfiner.data.phantom_lesions import deform
from retfiner.data.phantom_scene import Finding, Kind, Scan

Generator = np.random.Generator
MOST_WORDS = 40

# Wording of normal scans with relative frequencies; the first is every clinic's favourite.
NORMAL: dict[str, float] = {
    "No obvious abnormality.": 27.0,
    "Normal macula, no intra- or subretinal fluid.": 9.0,
    "Normal foveal contour, no fluid, no drusen.": 8.0,
    "Macula dry, foveal contour preserved.": 7.0,
    "Retinal layers intact, no IRF or SRF.": 6.0,
    "Unremarkable OCT of the macula.": 6.0,
    "Normal OCT, RPE regular, no ERM or VMT.": 4.0,
    "No evidence of macular oedema or drusen. Foveal pit normal.": 4.0,
    "Regular retinal structure with normal foveal depression.": 4.0,
    "All retinal layers intact. Vitreomacular interface unremarkable.": 3.0,
    "No pathological findings in the macular scan.": 3.0,
    "Macula flat and dry, no PED, no fluid.": 3.0,
}
NORMAL_OPENINGS = (
    "Normal macular thickness and contour",
    "Foveal pit preserved, layers well delineated",
    "No abnormality detected",
    "Inner and outer retinal layers intact",
    "Ellipsoid zone and RPE continuous",
    "Regular foveal depression",
)

# One finding in few words: the whole report of a busy day, and often repeated.
BRIEF: dict[Kind, tuple[str, ...]] = {
    "drusen": ("Macular drusen, no fluid.", "Drusen, no IRF or SRF."),
    "geographic_atrophy": ("Geographic atrophy, no fluid.", "GA with loss of the RPE."),
    "intraretinal_fluid": ("Intraretinal fluid present.", "Cystic IRF, no SRF."),
    "subretinal_fluid": ("Subretinal fluid present.", "SRF, no IRF."),
    "pigment_epithelial_detachment": (
        "PED, no intra- or subretinal fluid.",
        "PED, macula otherwise dry.",
    ),
    "subretinal_hyperreflective_material": ("SHRM present, no fluid.",),
    "epiretinal_membrane": ("Epiretinal membrane, no oedema.", "ERM, no fluid."),
    "vitreomacular_traction": ("Vitreomacular traction at the fovea.", "VMT, no fluid."),
    "macular_hole": ("Full-thickness macular hole.", "FTMH, no SRF."),
    "rnfl_thinning": ("RNFL thinning, macula dry.", "Nerve fibre layer thinning, no fluid."),
}

# {q} amount, {p} place, {h} height in µm, {w} width in µm, {mm} width in mm, {s} subtype.
SENTENCES: dict[Kind, tuple[str, ...]] = {
    "drusen": (
        "{q} drusen {p}",
        "{q} soft drusen {p}, up to {h} µm high",
        "Drusen {p} with irregular RPE",
        "{q} drusenoid elevations of the RPE {p}",
        "{q} sub-RPE drusen {p}, tallest {h} µm",
    ),
    "geographic_atrophy": (
        "Geographic atrophy {p}, {mm} mm wide, with choroidal hypertransmission",
        "GA {p}, extent {mm} mm, ellipsoid zone and RPE lost",
        "{q} geographic atrophy {p}, increased signal from the choroid",
        "Complete RPE and outer retinal atrophy {p}, about {mm} mm",
    ),
    "intraretinal_fluid": (
        "{q} intraretinal fluid {p}",
        "{q} IRF {p}",
        "{q} intraretinal cysts {p}",
        "Cystoid macular oedema {p}, {q}",
        "{q} cystic IRF {p} with retinal thickening",
    ),
    "subretinal_fluid": (
        "{q} subretinal fluid {p}, {h} µm",
        "{q} SRF {p}",
        "SRF {p}, height {h} µm",
        "{q} neurosensory detachment {p}",
        "{q} pocket of subretinal fluid {p}",
    ),
    "pigment_epithelial_detachment": (
        "{s} PED {p}, {h} µm high",
        "{q} {s} pigment epithelial detachment {p}",
        "{s} PED {p}, height {h} µm, width {w} µm",
        "{q} {s} PED {p}",
    ),
    "subretinal_hyperreflective_material": (
        "{q} subretinal hyperreflective material {p}",
        "SHRM {p}, {h} µm thick",
        "{q} SHRM {p} with disrupted ellipsoid zone",
    ),
    "epiretinal_membrane": (
        "{q} epiretinal membrane {c}",
        "{q} ERM {c}",
        "ERM {c}, {q}",
        "{q} epiretinal gliosis {c}",
    ),
    "vitreomacular_traction": (
        "Vitreomacular traction, adhesion {w} µm wide",
        "VMT with {q} elevation of the fovea",
        "{q} vitreomacular traction, foveal contour distorted",
        "{q} VMT, hyaloid attached at the fovea over {w} µm",
    ),
    "macular_hole": (
        "Full-thickness macular hole, aperture {w} µm",
        "FTMH, minimum diameter {w} µm",
        "{g} full-thickness macular hole, {w} µm",
        "{g} FTMH with elevated edges",
    ),
    "rnfl_thinning": (
        "{q} RNFL thinning, {s}",
        "{q} {s} thinning of the nerve fibre and ganglion cell layers",
        "RNFL thinned, {s} and {q}, suspicious for glaucoma",
        "{q} {s} nerve fibre layer thinning, glaucomatous pattern",
    ),
}
SHORT: dict[Kind, str] = {
    "drusen": "drusen",
    "geographic_atrophy": "geographic atrophy",
    "intraretinal_fluid": "IRF",
    "subretinal_fluid": "SRF",
    "pigment_epithelial_detachment": "PED",
    "subretinal_hyperreflective_material": "SHRM",
    "epiretinal_membrane": "ERM",
    "vitreomacular_traction": "VMT",
    "macular_hole": "FTMH",
    "rnfl_thinning": "RNFL thinning",
}
# What a clinician reports first.
WEIGHT: dict[Kind, float] = {
    "macular_hole": 2.0,
    "vitreomacular_traction": 1.4,
    "subretinal_fluid": 1.3,
    "intraretinal_fluid": 1.3,
    "subretinal_hyperreflective_material": 1.2,
    "geographic_atrophy": 1.2,
    "pigment_epithelial_detachment": 1.1,
    "epiretinal_membrane": 0.8,
    "drusen": 0.7,
    "rnfl_thinning": 0.6,
}
TRENDS: dict[str, tuple[str, ...]] = {
    "smaller": (
        "reduced compared with the previous visit",
        "less than at the last visit",
        "improved since the previous scan",
    ),
    "larger": (
        "increased compared with the previous visit",
        "more than at the last visit",
        "progressive since the previous scan",
    ),
    "stable": ("unchanged from the previous visit", "stable"),
    "new": ("new since the last visit",),
}


def pick(generator: Generator, options: tuple[str, ...]) -> str:
    """Return one of the options, all equally likely."""
    return options[int(generator.integers(len(options)))]


def describe(scan: Scan, generator: Generator) -> str:
    """Write the report of a scan.

    Args:
        scan: What the picture shows.
        generator: Source of the wording's chance.

    Returns:
        English prose of 3 to 40 words, the most informative first.
    """
    if not scan.findings and not scan.resolved:
        return _normal(scan, generator)
    brief = _brief(scan, generator)
    if brief:
        return brief
    ranked = sorted(scan.findings, key=lambda f: -WEIGHT[f.kind] * (0.5 + f.severity))
    sentences = []
    for order, finding in enumerate(ranked):
        sentences.append(_sentence(finding, generator, terse=order > 1 or len(ranked) > 3))
    for kind in scan.resolved:
        sentences.append(pick(generator, ("{} resolved", "{} has resolved since the last visit")))
        sentences[-1] = sentences[-1].format(SHORT[kind])
    extras = _denials(scan, generator)
    if "macular_hole" not in scan.kinds and generator.random() < 0.55:
        extras.insert(int(generator.integers(2)), _thickness(scan, generator))
    for extra in extras:
        if len(" ".join([*sentences, extra]).split()) <= MOST_WORDS:
            sentences.append(extra)
    return " ".join(_capital(sentence) + "." for sentence in sentences)


def _normal(scan: Scan, generator: Generator) -> str:
    if generator.random() < 0.78:
        weights = np.array(list(NORMAL.values()))
        return list(NORMAL)[int(generator.choice(len(NORMAL), p=weights / weights.sum()))]
    sentences = [pick(generator, NORMAL_OPENINGS)]
    if generator.random() < 0.6:
        sentences.append(_thickness(scan, generator))
    sentences += _denials(scan, generator)
    return " ".join(_capital(sentence) + "." for sentence in sentences)


def _brief(scan: Scan, generator: Generator) -> str | None:
    """Return a stock phrase for an eye with a single finding that calls for no more."""
    if len(scan.findings) != 1 or scan.resolved or generator.random() > 0.16:
        return None
    return pick(generator, BRIEF[scan.findings[0].kind])


def _sentence(finding: Finding, generator: Generator, terse: bool) -> str:
    template = pick(generator, SENTENCES[finding.kind])
    if terse:
        template = min(SENTENCES[finding.kind], key=len)
    height, width = finding.height_um, finding.width_um
    text = template.format(
        q=_amount(finding, generator),
        p=_place(finding, generator),
        c=_contour(finding, generator),
        h=round(height / 5) * 5,
        w=round(width / 10) * 10,
        mm=f"{width / 1000:.1f}",
        s=finding.subtype,
        g="small" if width <= 250 else "medium-sized" if width <= 400 else "large",
    )
    if finding.trend and (finding.trend != "stable" or generator.random() < 0.4):
        text += ", " + pick(
            generator, TRENDS[finding.trend][-1:] if terse else TRENDS[finding.trend]
        )
    return text


def _amount(finding: Finding, generator: Generator) -> str:
    words: tuple[str, ...] = ("moderate",)
    if finding.severity < 0.35:
        words = ("mild", "slight", "subtle", "minimal")
    elif finding.severity > 0.65:
        words = ("marked", "pronounced", "extensive", "severe")
    if finding.kind == "drusen":
        words = {3: ("few small",), 2: ("several",)}.get(
            3 if finding.severity < 0.35 else 2 if finding.severity <= 0.65 else 1,
            ("multiple large", "numerous"),
        )
    elif finding.kind == "pigment_epithelial_detachment":
        words = ("shallow", "low") if finding.severity < 0.35 else ("medium-sized",)
        words = ("large", "prominent") if finding.severity > 0.65 else words
    return pick(generator, words)


def _place(finding: Finding, generator: Generator) -> str:
    """Say where a finding lies, nasal or temporal as in the eye, not as in the picture."""
    offset = abs(finding.position_um)
    side = "nasal" if finding.position_um > 0 else "temporal"
    if offset < 260:
        below = finding.kind not in ("intraretinal_fluid", "rnfl_thinning")
        words = ("subfoveally", "under the fovea") if below else ("centrally", "at the fovea")
        return pick(generator, words)
    if offset < 700:
        return pick(generator, (f"{side} to the fovea", f"just {side} to the foveal centre"))
    return pick(
        generator, (f"in the {side} parafovea", f"parafoveal, {side}", f"{side} to the fovea")
    )


def _contour(finding: Finding, generator: Generator) -> str:
    if finding.severity < 0.35:
        return pick(generator, ("with preserved foveal contour", "without distortion"))
    if finding.severity < 0.65:
        return pick(generator, ("with wrinkling of the inner retina", "with shallow foveal pit"))
    return pick(generator, ("with loss of the foveal pit", "with marked retinal folds"))


def _thickness(scan: Scan, generator: Generator) -> str:
    """State the central macular thickness, measured on the scan's own layers."""
    tissue = bare(scan)
    deform(tissue, scan.findings)
    microns = round(central_thickness_um(tissue))
    return pick(generator, ("CMT {} µm", "CST {} µm", "central thickness {} µm")).format(microns)


def _denials(scan: Scan, generator: Generator) -> list[str]:
    """Return up to two negations, each of which only names what the scan does not show."""
    kinds = scan.kinds
    options: list[str] = []
    if not kinds & {"intraretinal_fluid", "subretinal_fluid"}:
        options.append(
            pick(generator, ("no intra- or subretinal fluid", "no IRF or SRF", "no macular oedema"))
        )
    elif "subretinal_fluid" not in kinds:
        options.append(pick(generator, ("no subretinal fluid", "no SRF")))
    elif "intraretinal_fluid" not in kinds:
        options.append(pick(generator, ("no intraretinal fluid", "no IRF")))
    if not kinds & {"epiretinal_membrane", "vitreomacular_traction"}:
        options.append(pick(generator, ("no ERM or VMT", "no epiretinal membrane")))
    if "pigment_epithelial_detachment" not in kinds:
        options.append("no PED")
    if "drusen" not in kinds:
        options.append("no drusen")
    if "geographic_atrophy" not in kinds:
        options.append(pick(generator, ("no geographic atrophy", "no outer retinal atrophy")))
    if "macular_hole" not in kinds:
        options.append("no macular hole")
    chances = np.linspace(1.0, 0.3, len(options))
    count = int(generator.choice([0, 1, 1, 2]))
    order = np.argsort(generator.random(len(options)) / chances)
    return [options[int(index)] for index in order[:count]]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
