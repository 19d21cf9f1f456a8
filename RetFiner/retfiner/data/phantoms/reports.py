"""Reports as clinicians dictate them: short, abbreviated, what matters first.

A report mentions every finding of its scan and denies only what is absent; its measurements are
those of the drawing. Many normal scans share their wording to the letter, as in any archive.
"""

from __future__ import annotations

import numpy as np

from retfiner.data.phantoms import wording
from retfiner.data.phantoms.anatomy import central_thickness_um, healthy_tissue, lateral_axis
from retfiner.data.phantoms.lesions import deform
from retfiner.data.phantoms.scene import Finding, Scan

Generator = np.random.Generator
MOST_WORDS = 40
OFF_CENTRE_UM = 600.0
"""Height above or below the fovea from which a report names it."""


def pick(generator: Generator, options: tuple[str, ...]) -> str:
    """Return one of the options, all equally likely."""
    return options[int(generator.integers(len(options)))]


def describe(scan: Scan, generator: Generator) -> str:
    """Write the report of a scan: 3 to 40 words of English, the most informative first."""
    if not scan.findings and not scan.resolved:
        return _normal(scan, generator)
    brief = _brief(scan, generator)
    if brief:
        return brief
    sentences = _positives(scan, generator)
    extras = _denials(scan, generator)
    if "macular_hole" not in scan.kinds and generator.random() < 0.55:
        extras.insert(int(generator.integers(2)), _thickness(scan, generator))
    for extra in extras:
        if _words([*sentences, extra]) <= MOST_WORDS:
            sentences.append(extra)
    return " ".join(_capital(sentence) + "." for sentence in sentences)


def _normal(scan: Scan, generator: Generator) -> str:
    if generator.random() < 0.78:
        stock, weights = list(wording.NORMAL), np.array(list(wording.NORMAL.values()))
        return stock[int(generator.choice(len(stock), p=weights / weights.sum()))]
    sentences = [pick(generator, wording.NORMAL_OPENINGS)]
    if generator.random() < 0.6:
        sentences.append(_thickness(scan, generator))
    sentences += _denials(scan, generator)
    return " ".join(_capital(sentence) + "." for sentence in sentences)


def _positives(scan: Scan, generator: Generator) -> list[str]:
    """Mention every finding, in fewer words the more there are, and whatever has resolved."""
    ranked = sorted(scan.findings, key=lambda f: -wording.WEIGHT[f.kind] * (0.5 + f.severity))
    sentences: list[str] = []
    for shortness in range(3):
        sentences = []
        for order, finding in enumerate(ranked):
            hurried = order > 1 or len(ranked) > 3
            sentences.append(_sentence(finding, generator, max(shortness, int(hurried))))
        for kind in scan.resolved:
            ending = pick(generator, ("resolved since the last visit", "has resolved completely"))
            sentences.append(f"{wording.SHORT[kind]} {ending}")
        if _words(sentences) <= MOST_WORDS:
            break
    return sentences


def _words(sentences: list[str]) -> int:
    return len(" ".join(sentences).split())


def _brief(scan: Scan, generator: Generator) -> str | None:
    """Return a stock phrase for an eye with a single finding that calls for no more."""
    if len(scan.findings) != 1 or scan.resolved or generator.random() > 0.16:
        return None
    return pick(generator, wording.BRIEF[scan.findings[0].kind])


def _sentence(finding: Finding, generator: Generator, shortness: int) -> str:
    """Describe one finding: in full (0), in one short clause (1), or by name and amount (2)."""
    if shortness == 2:
        return f"{_amount(finding, generator)} {wording.SHORT[finding.kind]}"
    template = pick(generator, wording.SENTENCES[finding.kind])
    if shortness:
        template = min(wording.SENTENCES[finding.kind], key=len)
    text = template.format(
        q=_amount(finding, generator),
        p=_place(finding, generator),
        c=_contour(finding, generator),
        h=round(finding.height_um / 5) * 5,
        w=round(finding.width_um / 10) * 10,
        mm=f"{finding.width_um / 1000:.1f}",
        s=finding.subtype,
        g=_hole_size(finding.width_um),
    )
    if finding.trend and (finding.trend != "stable" or generator.random() < 0.4):
        trends = wording.TRENDS[finding.trend]
        text += ", " + pick(generator, trends[-1:] if shortness else trends)
    return text


def _hole_size(aperture_um: float) -> str:
    """Name a macular hole's size as the International Vitreomacular Traction Study Group does."""
    return "small" if aperture_um <= 250 else "medium-sized" if aperture_um <= 400 else "large"


def _amount(finding: Finding, generator: Generator) -> str:
    level = 0 if finding.severity < 0.35 else 1 if finding.severity <= 0.65 else 2
    return pick(generator, wording.AMOUNTS.get(finding.kind, wording.USUAL_AMOUNTS)[level])


def _place(finding: Finding, generator: Generator) -> str:
    """Say where a finding lies, nasal or temporal as in the eye, not as in the picture."""
    if abs(finding.y_um) >= OFF_CENTRE_UM:
        side = "nasal" if finding.position_um > 0 else "temporal"
        where = "super" if finding.y_um > 0 else "infer"
        where += "ior" if abs(finding.position_um) < 400 else f"o{side}"
        return pick(generator, (f"{where} to the fovea", f"in the {where} macula"))
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
    tissue = healthy_tissue(scan.anatomy, lateral_axis(scan.eye, 128))
    deform(tissue, scan.at(0.0).findings)
    microns = round(central_thickness_um(tissue))
    return pick(generator, ("CMT {} µm", "CST {} µm", "central thickness {} µm")).format(microns)


def _denials(scan: Scan, generator: Generator) -> list[str]:
    """Return up to two negations, each of which only names what the scan does not show."""
    kinds = scan.kinds | frozenset(scan.resolved)  # what has resolved is denied already
    options = []
    fluid_denied = False
    for absent, wordings in wording.DENIALS:
        is_fluid = absent <= wording.FLUID
        if kinds & absent or (is_fluid and fluid_denied):
            continue
        fluid_denied |= is_fluid
        options.append(pick(generator, wordings) if len(wordings) > 1 else wordings[0])
    chances = np.linspace(1.0, 0.3, len(options))
    count = int(generator.choice([0, 1, 1, 2]))
    order = np.argsort(generator.random(len(options)) / chances)
    return [options[int(index)] for index in order[:count]]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
