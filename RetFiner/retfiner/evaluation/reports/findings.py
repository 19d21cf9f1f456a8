"""A reader of OCT reports: which findings a text states, and which it denies.

Rules, not a model, so that what counts can be read here:

1. A finding is named by any of its patterns in :data:`FINDINGS`; the longest name at a place wins,
   so that a "lamellar macular hole" is no macular hole and a "drusenoid PED" no drusen.
2. Words of denial deny what follows them up to the end of their scope: a full stop, a semicolon, a
   colon, a comma, or a word like "but" or "with". A comma ends the scope unless a list of findings
   goes on to an "or", or to the end with nothing but findings: "no drusen, fluid or atrophy" denies
   all three, "no SRF, IRF" both, "no fluid, drusen nasally" the fluid alone.
3. Words after a finding can deny it too: "SRF has resolved", "drusen not seen", "ERM: no", up to
   the comma; so can "resolved SRF" and "resolution of the SRF", unless it is partial. What "cannot
   be excluded" is stated, as all that is possible.
4. "No change", "no increase" and their like deny the change and not the finding.
5. Some words speak of several findings: "fluid" denied denies intra- and subretinal fluid; "macula
   dry" denies both as well; "intra- or subretinal fluid" names both. "Fluid" stated without saying
   where names none.
6. History names no finding of today: what follows "history of", "previous", "status post" or
   "rule out", in the same scope, is neither stated nor denied.
7. A finding that is denied in one place and stated in another is stated.

What it does not know: other eyes, and doubt ("possible" states). It reads English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

MOST_OTHERS = 0.2
"""Share of reports with words that no English text has, but for names in it."""
_OTHER_LANGUAGE = re.compile(
    r"\b(?:keine?[rnms]?|und|mit|ohne|nicht|sans|avec|pas|dans|aucune?|sin|con|del|senza|della|nella"
    r"|sem|com|geen|zonder|een|bez|brak)\b|[äöüßàâáãåæçéèêëíìîïñóòôõøœúùûąćęłńśźżčďěňřšťůžğş]"
    r"|[\u0400-\u06ff\u0900-\u0e7f\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]|[\u0370-\u03ff]{3}"
)

Status = Literal["stated", "denied"]

_RPE = r"(?:rpe|retinal pigment epithelium|pigment epitheli(?:um|al))"
_LAYERS = r"(?:rnfl|(?:retinal )?nerve[ -]fib(?:re|er)(?: layers?)?)"
_THIN = r"(?:thinning|thinned|loss|atrophy|defects?)"
_NEURO = r"(?:neurosensory|neuroretinal|serous retinal|serous foveal)"

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "drusen": (
        r"(?:reticular )?drusen", r"drusenoid (?:elevations?|deposits?)(?: of the rpe)?",
        r"pseudodrusen", r"sub-?rpe deposits?", r"drusenoid",
    ),
    "geographic_atrophy": (
        r"geographic atrophy", r"\bga\b", r"crora", r"(?:macular|outer retinal) atrophy",
        rf"{_RPE} (?:and outer retinal )?atrophy", rf"atrophy of the {_RPE}",
    ),
    "intraretinal_fluid": (
        r"intra-?retinal (?:fluid|cysts?|cystoid spaces?)", r"\birfs?\b", r"\bcmo\b", r"\bcme\b",
        r"(?:intra-?retinal )?cystoid (?:macular )?(?:o?edema|spaces?|changes?)",
        r"(?:diabetic )?macular o?edema", r"cystic changes?", r"o?edema",
    ),
    "subretinal_fluid": (
        r"sub-?retinal fluid", r"\bsrf\b", rf"{_NEURO} detachments?", r"sub-?foveal fluid",
        r"serous (?:neurosensory )?detachments? of the (?:fovea|macula|neurosensory retina)",
    ),
    "pigment_epithelial_detachment": (
        rf"(?:drusenoid |serous |fibrovascular )*{_RPE} detachments?",
        r"(?:drusenoid |serous |fibrovascular )*\bpeds?\b", r"sub-?rpe fluid",
    ),
    "subretinal_hyperreflective_material": (
        r"sub-?retinal hyper-?reflective material", r"\bshrm\b",
    ),
    "choroidal_neovascularisation": (
        r"choroidal neovasculari[sz]ation", r"\bcnv\b", r"neovascular membranes?", r"\bmnv\b",
    ),
    "epiretinal_membrane": (
        r"epi-?retinal (?:membranes?|gliosis|fibrosis)", r"\berms?\b", r"macular pucker",
    ),
    "vitreomacular_traction": (
        r"vitreo-?macular traction", r"\bvmt\b", r"vitreo-?retinal traction",
    ),
    "macular_hole": (r"(?:full-?thickness )?macular holes?", r"\bftmh\b", r"\bmh\b"),
    "lamellar_hole": (r"lamellar (?:macular )?holes?", r"(?:macular )?pseudo-?holes?"),
    "rnfl_thinning": (
        rf"{_LAYERS} {_THIN}", rf"(?:thin|thinned) {_LAYERS}",
        rf"{_THIN} of the {_LAYERS}(?: and ganglion cell layers?)?",
        rf"{_THIN} of the ganglion cell layer",
    ),
    "ellipsoid_zone_disruption": (
        r"(?:disrupted|disruption of the|loss of the|attenuated) (?:ellipsoid zone|ez)",
        r"(?:ellipsoid zone|\bez) (?:disruption|disrupted|loss|lost|attenuation)",
    ),
    "hyperreflective_foci": (r"hyper-?reflective (?:foci|dots)", r"\bhrf\b"),
    "hard_exudates": (r"hard exudates?", r"\bexudates\b"),
}  # fmt: skip
"""What is looked for: name -> patterns, in lower case."""

_SEVERAL = {
    r"intra-? ?(?:and|or|/) ?sub-?retinal fluid": ("intraretinal_fluid", "subretinal_fluid"),
    r"sub-? ?(?:and|or|/) ?intra-?retinal fluid": ("intraretinal_fluid", "subretinal_fluid"),
}
_ONLY_DENIED = {
    r"fluid|exudation": ("intraretinal_fluid", "subretinal_fluid"),
}
_DRY = re.compile(
    r"\b(?:macula|retina|fovea)(?: otherwise)?(?: is| flat and| appears)* dry\b|\bdry macula\b"
)
_BEFORE = re.compile(
    r"\b(?:no|without|absence of|absent|free of|negative for|neither|nor|lacks?|lacking|never|"
    r"not any|not show|not demonstrate|not reveal|"
    r"(?<!partial )(?<!incomplete )(?:resolution|disappearance) of)\b"
)
_RESOLVED = re.compile(r"(?<!partially )(?<!partly )(?<!not )(?<!incompletely )\bresolved $")
_HISTORY = re.compile(
    r"\b(?:history of|status[ -]post|s/p|previous|previously|prior|former|formerly|"
    r"(?:to )?rule out|r/o|screening for|risk of)\b"
)
_NO_LONGER = re.compile(
    r" longer (?!any\b|shows?\b|demonstrates?\b|reveals?\b|has\b|have\b|contains?\b)"
)
"""Denies what stands before it: "SRF no longer visible"; but "no longer shows SRF" denies that."""
_UNCHANGED = re.compile(
    r"\b(?:no|without) (?:significant |relevant |interval |obvious )*"
    r"(?:change|increase|decrease|progression|improvement|growth|difference)s?\b"
)
_AFTER = re.compile(
    r"^ ?(?:\(-\)|-(?=[,;.]|$))|"
    r"^(?:(?!\b(?:with|but|and|no|not|partially|partly|incompletely|cannot|never)\b)[^,;.]){0,30}?"
    r"\b(?:(?:is |are |were |was |has |have |had )?(?:completely |fully |now |been )*"
    r"(?:resolved|absent|disappeared|gone|cleared|closed|ruled out|excluded|none|nil|negative|"
    r"no(?=[,;.]|$))|no longer|"
    r"not (?:be )?(?:seen|visible|present|detected|found|identified|noted|observed|evident|"
    r"appreciated|demonstrated))\b"
)
_SCOPE_END = re.compile(
    r"[;.:]|\b(?:but|however|although|except|with|despite)\b|"
    r"\band (?=persist|new|stable|residual|increas|remain|unchanged)"
)
_PAST_END = re.compile(r"[;.:,]|\b(?:but|however|although|except|with|despite|now|today|no)\b")
_DECIMAL = re.compile(r"(?<=\d)[.,](?=\d)")


class Mention(NamedTuple):
    """Which findings :func:`normalise`'s text names from ``start`` up to ``end``, and how."""

    start: int
    end: int
    findings: tuple[str, ...]
    status: Status


_PATTERNS: list[tuple[re.Pattern[str], tuple[str, ...], bool]] = [
    *((re.compile(rf"(?<![\w-])(?:{p})(?!\w)"), (name,), False)
      for name, patterns in FINDINGS.items() for p in patterns),
    *((re.compile(rf"(?<!\w)(?:{p})(?!\w)"), names, False) for p, names in _SEVERAL.items()),
    *((re.compile(rf"(?<!\w)(?:{p})(?!\w)"), names, True) for p, names in _ONLY_DENIED.items()),
]  # fmt: skip


def read_findings(report: str) -> dict[str, Status]:
    """Say which findings a report states and which it denies; what it does not mention is absent.

    The report is in English, as written or as a WordPiece model writes it (lower case, spaces
    around hyphens).
    """
    text = normalise(report)
    found: dict[str, Status] = {}
    if _DRY.search(text):
        found = {"intraretinal_fluid": "denied", "subretinal_fluid": "denied"}
    for mention in find_mentions(text):
        for name in mention.findings:
            if mention.status == "stated" or name not in found:
                found[name] = mention.status
    return found


def are_english(reports: Sequence[str]) -> bool:
    """Say whether reports are in the language of the rules; in others, denials would be missed."""
    others = sum(_OTHER_LANGUAGE.search(report.lower()) is not None for report in reports)
    return others <= MOST_OTHERS * len(reports)


def find_mentions(text: str) -> list[Mention]:
    """Find where a text of :func:`normalise` speaks of findings, in order."""
    denied = _denied_spans(text)
    past = [
        (match.end(), stop.start() if (stop := _PAST_END.search(text, match.end())) else len(text))
        for match in _HISTORY.finditer(text)
    ]
    found = []
    for start, end, findings, only_denied in _names(text):
        if any(first <= start < last for first, last in past):
            continue
        is_denied = any(first <= start < last for first, last in denied)
        is_denied = is_denied or bool(_AFTER.search(text[end:]) or _RESOLVED.search(text[:start]))
        if is_denied or not only_denied:
            found.append(Mention(start, end, findings, "denied" if is_denied else "stated"))
    return found


def stated_findings(report: str) -> frozenset[str]:
    """Return the findings that a report states."""
    return frozenset(name for name, status in read_findings(report).items() if status == "stated")


def normalise(report: str) -> str:
    """Bring a report into the form that is read: lower case, plain hyphens and spaces."""
    text = unicodedata.normalize("NFKC", report).lower()
    text = re.sub(r"\s*-\s*", "-", " ".join(text.split()))
    text = re.sub(r"(intra|sub)-(and|or)\b", r"\1- \2", text)
    text = re.sub(r"\s+([,;.:])", r"\1", text)
    return _DECIMAL.sub("·", text)  # a decimal point ends no sentence


def _names(text: str) -> list[tuple[int, int, tuple[str, ...], bool]]:
    """Find every name of a finding; where names overlap, the longest wins."""
    every = [
        (*match.span(), findings, only_denied)
        for pattern, findings, only_denied in _PATTERNS
        for match in pattern.finditer(text)
    ]
    kept: list[tuple[int, int, tuple[str, ...], bool]] = []
    for name in sorted(every, key=lambda name: (name[0] - name[1], name[0])):
        if all(name[1] <= start or end <= name[0] for start, end, *_ in kept):
            kept.append(name)
    return sorted(kept)


def _denied_spans(text: str) -> list[tuple[int, int]]:
    """Find the scopes of words of denial."""
    harmless = [match.start() for match in _UNCHANGED.finditer(text)]
    spans = []
    for match in _BEFORE.finditer(text):
        if match.start() in harmless or _NO_LONGER.match(text, match.end()):
            continue
        end = _SCOPE_END.search(text, match.end())
        spans.append(
            (match.end(), _comma_end(text, match.end(), end.start() if end else len(text)))
        )
    return spans


def _comma_end(text: str, start: int, end: int) -> int:
    """End a scope at its first comma that is not one of a list of findings."""
    comma = text.find(",", start, end)
    while comma >= 0:
        rest = text[comma + 1 : end].lstrip()
        item = re.sub(r"^(?:or|nor) ", "", rest)  # "ERM, VMT, or macular hole": the last comma
        is_list = bool(re.search(r"\b(?:or|nor)\b", rest)) and any(
            pattern.match(item) for pattern, _, _ in _PATTERNS
        )
        items = filter(None, (part.strip() for part in re.split(r",|\b(?:and|or|nor)\b", rest)))
        is_list = is_list or all(any(p.fullmatch(i) for p, _, _ in _PATTERNS) for i in items)
        alone = not text[start:comma].strip()  # "SRF: no, ERM: yes"
        if alone or not is_list or _BEFORE.search(rest.partition(",")[0]):
            return comma
        comma = text.find(",", comma + 1, end)
    return end
