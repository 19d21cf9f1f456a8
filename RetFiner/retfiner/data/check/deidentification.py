"""What in a report or a file name looks as if it named a patient: a warning, not a guarantee.

Patterns find what has a form: titles and labels with a name, dates, long numbers, e-mail addresses,
in the languages listed below; numerals of every script are read. They do not find what has none: a
bare name ("seen with John Smith", "Smith_John.png") that no list holds, an address, a rare
diagnosis, a name after "DR" in capitals (there, diabetic retinopathy). They also warn about things
that are none: a counter that looks like a record number, a scanner's serial number. Headers of
DICOM and vendors' files, and text burnt into a B-scan, are not looked at. A report in a script of
which no name can be told is named as such.

The functions return kinds, never the words that were found, so that no message can hold them.
The kinds follow the identifiers of HIPAA's Safe Harbor method (45 CFR 164.514(b)(2)) that have a
form; of dates, years alone are allowed there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from retfiner.common.errors import InputError
from retfiner.common.patients import owner_in_name

_CAPITAL = r"[A-ZÀ-ÖØ-Þ]"
_YEAR = r"(?:18|19|20)\d\d"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = (
    r"(?:Jan(?:uary|uar)?|Feb(?:ruary|ruar)?|Mar(?:ch)?|März|Apr(?:il)?|May|Mai|June?|Juni|July?|"
    r"Juli|Aug(?:ust)?|Sept?(?:ember)?|O[ck]t(?:ober)?|Nov(?:ember)?|De[cz](?:ember)?)"
)
_OTHER_MONTH = (
    r"(?:janvier|février|fevrier|mars|avril|mai|juin|juillet|août|aout|septembre|octobre|novembre|"
    r"décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|"
    r"noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|"
    r"janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|dezembro|januari|februari|maart|"
    r"mei|augustus|stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|"
    r"października|listopada|grudnia|ocak|şubat|mart|nisan|mayıs|haziran|temmuz|ağustos|eylül|ekim|"
    r"kasım|aralık|января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|"
    r"декабря|січня|лютого|березня|квітня|травня|червня|липня|серпня|вересня|жовтня|листопада|"
    r"грудня|ιανουαρίου|φεβρουαρίου|μαρτίου|απριλίου|μαΐου|μαίου|ιουνίου|ιουλίου|αυγούστου|"
    r"σεπτεμβρίου|οκτωβρίου|νοεμβρίου|δεκεμβρίου|jänner|feber)"
)
"""Of French, Spanish, Italian, Portuguese, Dutch, Polish, Turkish, Russian, Ukrainian, Greek."""
_ORDINAL = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
    r"\w+teenth|twentieth|twenty[- ]\w+(?:st|nd|rd|th)|thirtieth|thirty[- ]first|"
    r"(?:ersten?|zweiten?|dritten?|vierten?|fünften?|sechsten?|siebten?|siebenten?|achten?|neunten?|"
    r"zehnten?|elften?|zwölften?|\w+zehnten?|\w*(?:zwanzig|dreißig|dreissig)sten?)|"
    r"premier|deux|trois|quatre|cinq|six|sept|huit|neuf|dix|onze|douze|treize|quatorze|quinze|"
    r"seize|vingt|trente|primero|uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|once|doce|"
    r"trece|catorce|quince|veinte|treinta|primo|due|tre|quattro|cinque|sei|sette|otto|nove|dieci|"
    r"undici|dodici|venti|trenta)"
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
_DATES_ELSEWHERE = _any(
    rf"(?<![\d.,/]){_DAY}(?:er|º|°|-?[eγη]?ης?|-?го|\.)?\s+(?:de\s+|di\s+|del\s+)?{_OTHER_MONTH}\b",
    rf"\b{_ORDINAL}\s+(?:of\s+|de\s+|di\s+|day of\s+)?(?:{_MONTH}|{_OTHER_MONTH})\b",
    rf"\b(?:{_MONTH}|{_OTHER_MONTH})\s+(?:the\s+)?{_ORDINAL}\b",
    rf"\b{_OTHER_MONTH}\s+(?:de\s+|del\s+)?{_YEAR}\b",
    r"\d{1,4}\s*年\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*[日号號])?",
    r"(?:令和|平成|昭和|大正|民國|民国)\s*(?:\d{1,3}|元)\s*年",
    r"(?<!\d)\d{1,2}\s*月\s*\d{1,2}\s*[日号號]",
    r"\d{4}\s*년\s*\d{1,2}\s*월|(?<!\d)\d{1,2}\s*월\s*\d{1,2}\s*일",
    flags=re.IGNORECASE,
)
_HAN_DATE = re.compile(
    r"[一二三四五六七八九十〇零○]{1,4}年|[一二三四五六七八九十]{1,3}月[一二三四五六七八九十]{1,3}[日号號]"
)
_HAN = r"[\u3400-\u9fff々]"
_NAMED_ELSEWHERE = _any(
    rf"(?:姓\s*名|患者姓名|病人姓名|氏\s*名|名前|患者名)\s*[:：]?\s*(?:{_HAN}|[A-Za-z\u30a0-\u30ff])",
    rf"(?:患者|病人|患儿)\s*[:：]?\s*{_HAN}{{2,3}}(?=[,，。、;；\s]|先生|女士|$)",
    rf"{_HAN}{{1,4}}(?:様|さん|先生|医師|醫師|醫生|医生|大夫|女士|主任)",
    r"(?:[Пп]ациент(?:ка|ки|а)?|[Бб]ольной|[Бб]ольная|ФИО|Ф\.И\.О\.?|[Вв]рач|[Дд]-р|[Дд]октор|"
    r"[Пп]ацієнт(?:ка)?|[Лл]ікар)\s*[:\-]?\s*[А-ЯЁІЇЄ][а-яёіїє]+",
    r"\b[А-ЯЁ][а-яё]+\s+[А-ЯЁ]\.\s?[А-ЯЁ]\.|\b[А-ЯЁ][а-яё]+\s+[А-ЯЁ][а-яё]+\s+[А-ЯЁ][а-яё]+(?:вич|вна|чна)\b",
    r"(?:[Αα]σθεν(?:ής|ούς)|[Όό]νομα(?:τεπώνυμο)?|[Εε]πώνυμο|[Κκ](?:ος|α)\.?|[Δδ]ρ\.?|[Ιι]ατρός)\s*[:.]?\s*"
    r"[Α-ΩΆΈΉΊΌΎΏ][α-ωάέήίόύώϊϋΐΰς]+",
    r"(?:환자(?:명)?|성명|이름)\s*[:：]\s*[가-힣]{2,4}|[가-힣]{2,4}\s?(?:님|선생님|교수)",
    r"(?:اسم|المريض|المريضة|الدكتور|د\.)\s*[:：]?\s*[\u0621-\u064a]{2,}",
    r"(?:שם|מטופל(?:ת)?|ד\"ר|דר')\s*[:：]?\s*[\u05d0-\u05ea]{2,}",
    r"\b(?i:nom|prénom|nombre|apellidos?|cognome|nome|paciente|paziente|imię|nazwisko|naam|navn|"
    r"hasta adı|adı soyadı|jméno|příjmení)\s*[:=]\s*[^\W\d_]{2,}",
    r"\b(?:Monsieur|Madame|Sr\.|Sra\.|Sig\.|Sig\.ra|Dott\.|Dott\.ssa|Dra\.)\s+"
    + _CAPITAL + r"[^\W\d_]+",
)  # fmt: skip
_NOT_NAMES = re.compile(
    r"(?:患者|病人)\s*[:：]?\s*(?:左眼|右眼|双眼|雙眼|主诉|主訴|自述|因|无|無|未|有|黄斑|黃斑|视网|視網|网膜|"
    r"女性|男性|年龄|年齡)|Пациент\w*\s+(?:Жалоб|Осмотр)"
)
_JUDGED_SCRIPTS = frozenset({
    "LATIN", "GREEK", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL",
    "ARABIC", "HEBREW", "FULLWIDTH", "HALFWIDTH", "MICRO", "FEMININE", "MASCULINE", "IDEOGRAPHIC",
    "MODIFIER", "SUPERSCRIPT", "SUBSCRIPT", "MATHEMATICAL", "ANGSTROM", "OHM", "KELVIN",
    "DOUBLE-STRUCK", "SCRIPT", "COMBINING",
})  # fmt: skip
"""Scripts of which the patterns above know labels or months."""
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
_MONTH_FOLDER = re.compile(rf"{_YEAR}[-_.]{_MONTH_NUMBER}")
_HASHES = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b(?=\d*[a-f])[0-9a-f]{16,}\b", re.IGNORECASE
)


def _has_name(text: str) -> bool:
    if _TITLED.search(text):
        return True
    if any(found[1].casefold() not in _WITHHELD for found in _NAMED.finditer(text)):
        return True
    others = _NAMED_ELSEWHERE.finditer(text)
    if any(
        _NOT_NAMES.match(found[0] + text[found.end() : found.end() + 4]) is None for found in others
    ):
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
    "date": lambda text: (
        _DATES.search(text)
        or _WORDED_DATES.search(text)
        or _DATES_ELSEWHERE.search(text)
        or _HAN_DATE.search(text)
    ),
    "age over 89": _AGES.search,
    "record number": _RECORDS.search,
    "phone number": _PHONES.search,
    "e-mail address": _MAIL.search,
}
RECORD, LISTED, UNJUDGED = "record number", "listed word", "script in which no name can be told"
KINDS = (*_KINDS, LISTED, UNJUDGED)
"""What is looked for, in the order in which it is listed."""


def identifiers_in_report(report: str, listed: frozenset[str] = frozenset()) -> list[str]:
    """Return what kinds of :data:`KINDS` a report seems to hold; never the words themselves.

    ``listed`` are words to look for besides, as :func:`read_identifier_list` returns them.
    """
    text = _with_digits(report)
    found = {kind for kind, search in _KINDS.items() if search(text)}
    # A phone number or a date without separators is a long number too: one kind is enough.
    if not found & {"phone number", "date", "date of birth"} and _LONG_NUMBER.search(text):
        found.add(RECORD)
    if _has_listed(report, listed):
        found.add(LISTED)
    if not report.isascii() and _is_unjudged(report):
        found.add(UNJUDGED)
    return [kind for kind in KINDS if kind in found]


def identifiers_in_patient(name: str, listed: frozenset[str] = frozenset()) -> list[str]:
    """Return what kinds the name of a patient in a table seems to hold: a person's own name.

    Numbers are what the column is for; that a name may be a date is said elsewhere.
    """
    found = set()
    person = rf"{_CAPITAL}[^\W\d_]+,?\s+{_CAPITAL}[^\W\d_]*\.?(?:\s+{_CAPITAL}[^\W\d_]*\.?)*"
    if re.fullmatch(person, name.strip()) or _has_name(name):
        found.add("name")
    if _MAIL.search(name):
        found.add("e-mail address")
    if _has_listed(name, listed):
        found.add(LISTED)
    return [kind for kind in KINDS if kind in found]


def identifiers_in_path(name: str, listed: frozenset[str] = frozenset()) -> list[str]:
    """Return what kinds of :data:`KINDS` the path of an image seems to hold, as tables give it.

    Each folder and the file's name are looked at, underscores read as spaces. Zero-padded counters
    (``frame_000123``), hashes and UUIDs are no record numbers, nor are the names that published
    collections gave their files (``CNV-103044-1.png``). A folder that is called as a month
    (``2022-03``) is an archive's, and no date of a patient's.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    published = bool(owner_in_name(path.stem).patient)
    folders = [part for part in path.parts[:-1] if _MONTH_FOLDER.fullmatch(part) is None]
    parts = [_HASHES.sub("", part) for part in (*folders, "" if published else path.stem)]
    found: set[str] = set()
    for part in filter(None, parts):
        text = _with_digits(part)
        spaced = text.replace("_", " ")
        found |= {kind for kind, search in _KINDS.items() if search(text) or search(spaced)}
        numbers = [digits.lstrip("0") for digits in re.findall(r"\d+", text)]
        if "date" not in found and any(len(digits) >= 6 for digits in numbers):
            found.add(RECORD)
        if _has_listed(spaced, listed):
            found.add(LISTED)
    if re.search(rf"(?:^|/){_YEAR}/{_MONTH_NUMBER}/{_DAY}(?:/|$)", "/".join(parts)):
        found.add("date")
    return [kind for kind in KINDS if kind in found]


def _with_digits(text: str) -> str:
    """Write the numerals and full-width letters of every script as ASCII's."""
    if text.isascii():
        return text
    signs = (str(unicodedata.decimal(s)) if s.isdecimal() else s for s in text)
    full = ((chr(ord(s) - 0xFEE0) if "\uff01" <= s <= "\uff5e" else s) for s in signs)
    return unicodedata.normalize("NFC", "".join(full))


def _is_unjudged(report: str) -> bool:
    names = (
        unicodedata.name(s, "").split(" ")[0] for s in set(report) if s.isalpha() and ord(s) > 127
    )
    return any(name not in _JUDGED_SCRIPTS for name in names)


# ---- words of the user's own


def read_identifier_list(path: Path | None) -> frozenset[str]:
    """Read names or words, one a line, that are to be found besides; lines with # are remarks.

    Raises:
        InputError: If the file is missing, not UTF-8, or holds none.
    """
    if path is None:
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--identifier_list {path} cannot be read", got=error, expected="a text file in UTF-8"
        ) from error
    words = frozenset(_folded(line) for line in lines if line.strip() and line.strip()[0] != "#")
    if not words - {""}:
        raise InputError(f"--identifier_list {path} holds no word", expected="one a line")
    return words - {""}


def _has_listed(text: str, listed: frozenset[str]) -> bool:
    """Say whether a text has a listed word or words, whatever their case and accents."""
    if not listed:
        return False
    words = _folded(text).split()
    longest = max(word.count(" ") for word in listed) + 1
    for size in range(1, min(longest, len(words)) + 1):
        if any(" ".join(words[i : i + size]) in listed for i in range(len(words) - size + 1)):
            return True
    # Chinese and Japanese put no blanks between words.
    return any(not word.isascii() and word in text for word in listed if _HAS_HAN.search(word))


_HAS_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(s for s in plain if not unicodedata.combining(s))
    return " ".join(re.findall(r"[^\W_]+", kept))
