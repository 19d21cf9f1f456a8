"""What in a report or a file name looks as if it named a patient: a warning, not a guarantee.

Patterns find what has a form: titles with a name, dates, long numbers, e-mail addresses. They do
not find what has none: a bare name ("seen with John Smith", "Smith_John.png"), an address, a rare
diagnosis, a name after "DR" in capitals (there, diabetic retinopathy). They also warn about things
that are none: a counter that looks like a record number, a scanner's serial number. Headers of
DICOM and vendors' files, and text burnt into a B-scan, are not looked at.

The functions return kinds, never the words that were found, so that no message can hold them.
The kinds follow the identifiers of HIPAA's Safe Harbor method (45 CFR 164.514(b)(2)) that have a
form; of dates, years alone are allowed there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

_CAPITAL = r"[A-ZÀ-ÖØ-Þ]"
_YEAR = r"(?:18|19|20)\d\d"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = (
    r"(?:Jan(?:uary|uar)?|Feb(?:ruary|ruar)?|Mar(?:ch)?|März|Apr(?:il)?|May|Mai|June?|Juni|July?|"
    r"Juli|Aug(?:ust)?|Sept?(?:ember)?|O[ck]t(?:ober)?|Nov(?:ember)?|De[cz](?:ember)?)"
)
_DATE_WITH_YEAR = (
    rf"(?:{_YEAR}[-./]{_MONTH_NUMBER}[-./]{_DAY}|{_DAY}[-./]{_DAY}[-./](?:{_YEAR}|\d\d)|{_YEAR})"
)


def _any(*patterns: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), flags)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLED = _any(
    rf"\b(?:Dr|Prof|Mr|Mrs|Ms|Miss|Herrn?|Frau|Mme|Mlle|Señora?)\b\.?\s+"
    rf"(?:(?:Dr|med|univ|habil|dent|rer|nat|Prof|Ing)\b\.?\s*)*{_CAPITAL}",
    rf"\b(?:Hr|Fr|MR|MRS)\.\s+{_CAPITAL}",
    rf"\b(?:by|signed|consultant|attending|surgeon|physician):?\s+DR\.?\s+{_CAPITAL}",
)
_NAMED = re.compile(
    r"(?<!file )(?<!device )(?<!scan )(?<!study )(?<!image )(?<!protocol )(?<!drug )"
    r"\b(?:name|surname|forename|(?:first|last|family|given)[ -]?name|nachname|vorname|"
    r"familienname|patient(?:'s)? name(?: is)?)\s*[:=]\s*([^\W\d_][\w'’-]*)",
    re.IGNORECASE,
)
_PATIENT = re.compile(
    r"\b(?:Patient(?:in)?|PATIENT(?:IN)?|Pat\.|Pt\.?)\s*:\s*([^\W\d_][\w'’-]*)"
    rf"(,\s*{_CAPITAL})?"
)

_WITHHELD = _words("""
    anon anonym anonymised anonymized anonymous none no na not redacted removed unknown withheld
    unbekannt hidden deleted left right od os ou
""")
_SENTENCE_STARTS = _words("""
    a an the this is has had was with without and no not both male female man woman age aged young
    old known new follow followup stable seen presents presented complains history status post
    referred diabetic myopic phakic pseudophakic aphakic normal healthy treated untreated oct octa
    fundus retina retinal macula macular fovea foveal optic vitreous drusen fluid irf srf ped shrm
    ga amd namd dme dmo dr npdr pdr csc cscr brvo crvo rvo erm vmt ftmh cnv glaucoma cataract oedema
    edema atrophy choroidal intraretinal subretinal epiretinal geographic central visual iop va bcva
""")
_EPONYMS = _words("""
    adie basedow behçet behcet berlin best bietti bitot bowman bruch cloquet coats descemet drance
    edinger eales elschnig fuchs goldmann graves gunn haab haidinger haller harada henle horner
    humphrey irvine gass kayser koeppe krukenberg leber lisch marfan martegiani meibom mittendorf
    mueller müller purtscher roth salzmann sattler schlemm schnabel snellen soemmering sorsby
    stargardt steinert stickler sturge terson tenon usher valsalva vogt vossius wagner weill weiss
    wieger wyburn zinn
""")

_BORN = _any(
    r"\bD\.?O\.?B(?![A-Za-z])\W{0,3}\d{2}",
    rf"\b(?:birth ?date|date of birth|born|geb\.|geboren|Geburtsdatum|née|né)"
    rf"[\s:=(]*(?:(?:on|in|am|le)\s+)?(?:(?:{_DAY}\.?\s*)?{_MONTH}\.?,?\s*)?\(?{_DATE_WITH_YEAR}\b",
    flags=re.IGNORECASE,
)
_DATES = _any(
    rf"(?<![\d.]){_YEAR}([-./_ ]){_MONTH_NUMBER}\1{_DAY}(?![\d])",
    rf"(?<!\d)(?<!\d[./-]){_DAY}([-./_])(?:{_DAY})\2(?:{_YEAR}|\d\d)(?!\d)(?![./-]\d)",
    rf"(?<!\d){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)",
    r"(?<!\d)(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])(?:19|20)\d\d(?!\d)",
    rf"(?<![\d./-]){_MONTH_NUMBER}[/.](?:19|20)\d\d(?![\d/])",
    r"(?<![\d./-])(?:19|20)\d\d-(?:0[1-9]|1[0-2])(?![\d-])",
)
_WORDED_DATES = _any(
    rf"(?<![\d.,/])\b{_DAY}(?:st|nd|rd|th|\.)?[\s-]+(?:of\s+)?(?:{_MONTH}|{_MONTH.upper()})\b",
    rf"\b(?:{_MONTH}|{_MONTH.upper()})\b\.?,?[\s-]+(?:{_DAY}(?:st|nd|rd|th)\b|"
    rf"(?:{_DAY},?\s+)?{_YEAR}\b)",
    rf"\b(?!May\b)(?:{_MONTH})\b\.?\s+{_DAY}\b(?!\s*(?:[%/x×]|\.\d|µm|um|mm|D\b))",
)
_OLD = r"(?:9\d|1[0-2]\d)"
_AGES = _any(
    rf"(?<![\d.,/]){_OLD}[\s-]*(?:years?|yrs?\.?)[\s-]+old\b",
    rf"(?<![\d.,/]){_OLD}[\s-]*(?:y/?o\b|y\.o\.|years?\s+of\s+age|[-\s]?jährig|Jahre\s+alt)",
    rf"\b(?:aged?|Alter)\s*(?::|=|of|is|von)?\s*{_OLD}\b(?!\s*(?:%|µm|um|mm|days|months))",
    rf"\b{_OLD}\s?(?-i:[FM])\b(?=\s+(?:with|patient|pt|presents|seen|s/p)\b)",
    flags=re.IGNORECASE,
)
_RECORDS = _any(
    r"\b(?:MRN|UHID|SSN|SVNR|NHS|Aktenzeichen)\b(?:\s*(?:no|nr|number)\b)?[\s:.#=]*"
    r"(?:[A-Z]{1,3}[- ]?)?\d{3}",
    r"\bMRN\d{3}",
    r"\b(?:pat(?:ient(?:en)?)?|hospital|accession|chart|case|record|fall|versicherungs|medical "
    r"record)[-\s.]*(?:id|no|nr|num|number|nummer|#)\b[\s:.#=]*(?:[A-Z]{1,3}[- ]?)?\d{3}",
    r"\b(?-i:ID)\s*[:#=]\s*(?:[A-Z]{1,3}[- ]?)?\d{3}",
    r"\b\d{3}-\d{2}-\d{4}\b",
    flags=re.IGNORECASE,
)
_PHONES = _any(
    r"\b(?:tel|phone|telephone|mobile|cell|fax|telefon|handy|ph)\b\.?\s*(?:no\b\.?)?\s*:?\s*"
    r"\+?[\d(][\d\s()/.-]{4,}\d",
    r"(?<![\d.])\+\d{1,3}(?:[\s()/-]*\d){8,12}(?!\.?\d)",
    r"(?<![\d.])\(\d{3}\)\s*\d{3}[-. ]\d{4}\b",
    r"(?<![\d.-])\d{3}([-.])\d{3}\1\d{4}\b(?!-)",
    r"(?<![\d.,/])0\d{2,4}\s?[/-]\s?\d{4,}",
    flags=re.IGNORECASE,
)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[A-Za-z]{2,}")
_LONG_NUMBER = re.compile(r"(?<!\d)(?<!\d[.,])\d{6,}(?!\d)")
_HASHES = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b(?=\d*[a-f])[0-9a-f]{16,}\b", re.IGNORECASE
)


def _has_name(text: str) -> bool:
    if _TITLED.search(text):
        return True
    if any(found[1].casefold() not in _WITHHELD for found in _NAMED.finditer(text)):
        return True
    return any(_is_name(*found.groups()) for found in _PATIENT.finditer(text))


def _is_name(word: str, first_name: str | None) -> bool:
    """Say whether what follows "Patient:" is a name, not the beginning of a sentence."""
    plain = re.split(r"['’-]", word.casefold())[0]
    if plain in _EPONYMS:  # "Wagner, Anna", but "Wagner syndrome"
        return first_name is not None
    return word[0].isupper() and plain not in _SENTENCE_STARTS | _WITHHELD


_KINDS: Mapping[str, Callable[[str], object]] = {
    "name": _has_name,
    "date of birth": _BORN.search,
    "date": lambda text: _DATES.search(text) or _WORDED_DATES.search(text),
    "age over 89": _AGES.search,
    "record number": _RECORDS.search,
    "phone number": _PHONES.search,
    "e-mail address": _MAIL.search,
}
KINDS = tuple(_KINDS)
"""What is looked for, in the order in which it is listed."""


def identifiers_in_report(report: str) -> list[str]:
    """Return what kinds of :data:`KINDS` a report seems to hold; never the words themselves."""
    found = {kind for kind, search in _KINDS.items() if search(report)}
    # A phone number or a date without separators is a long number too: one kind is enough.
    if not found & {"phone number", "date", "date of birth"} and _LONG_NUMBER.search(report):
        found.add("record number")
    return [kind for kind in KINDS if kind in found]


def identifiers_in_path(name: str) -> list[str]:
    """Return what kinds of :data:`KINDS` the path of an image seems to hold, as tables give it.

    Each folder and the file's name are looked at, underscores read as spaces. Zero-padded counters
    (``frame_000123``), hashes and UUIDs are no record numbers.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [_HASHES.sub("", part) for part in (*path.parts[:-1], path.stem)]
    found: set[str] = set()
    for part in parts:
        spaced = part.replace("_", " ")
        found |= {kind for kind, search in _KINDS.items() if search(part) or search(spaced)}
        numbers = [digits.lstrip("0") for digits in re.findall(r"\d+", part)]
        if "date" not in found and any(len(digits) >= 6 for digits in numbers):
            found.add("record number")
    if re.search(rf"(?:^|/){_YEAR}/{_MONTH_NUMBER}/{_DAY}(?:/|$)", "/".join(parts)):
        found.add("date")
    return [kind for kind in KINDS if kind in found]
