"""From a cell to the plain text of a report: markup taken out, and what is no text named.

Reports come as RTF out of dictation systems, as HTML or XML out of clinical documents, copied from
PDFs, and with the traces of spreadsheets. A text encoder would read fonts and tags as words.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import NamedTuple

from retfiner.data.table_file import INVISIBLE

MISSING = frozenset({"", "nan", "none", "null", "n/a", "na", "-", "<na>", "nat", "nil"})
"""How tables write that there is no value, in lower case."""
_PLACEHOLDERS = MISSING | {
    "blank", "dictated", "empty", "missing", "n.a", "no report", "not available",
    "not dictated", "not reported", "pending", "report pending", "see above", "see below",
    "see previous", "see previous report", "see prior", "see prior report", "see report",
    "tba", "tbd", "test", "to follow", "unknown", "idem", "ditto", "dito", "same", "same as above",
    "as above", "as before",
    "siehe oben", "siehe unten", "siehe vorbefund", "vorbefund", "s. vorbefund", "s.o", "s. o",
    "s.u", "s. u", "s. o.", "k.a", "k. a", "k. a.", "keine angabe", "keine angaben",
    "kein bericht", "wie oben", "wie zuvor", "unbekannt", "folgt", "ausstehend",
    "voir ci-dessus", "voir précédent", "voir compte rendu", "néant", "inconnu",
    "ver informe", "ver informe previo", "ver arriba", "sin informe", "desconocido", "ídem",
    "vedi sopra", "vedi referto", "vedi precedente", "sconosciuto",
    "无", "無", "空", "同上", "见上", "見上", "无报告", "無報告", "未知", "нет", "н/д", "см. выше", "неизвестно",
    "なし", "同前", "없음",
}  # fmt: skip
"""How people write that a report, a patient or another cell is not there."""
_SAYS_NOTHING = frozenset({
    "unchanged", "unverändert", "stable", "stabil", "no change", "no changes", "status quo",
    "stationär", "inchangé", "sin cambios", "invariato", "stationary", "follow-up", "follow up",
    "control", "kontrolle", "s/p", "ok", "done", "oct", "oct macula", "see image", "siehe bild",
})  # fmt: skip
"""Reports that say nothing of the image without another one."""
_ERROR_VALUE = re.compile(r"#[A-ZÄÖÜÉ/0-9_ ]{1,20}[!?]?|#[\w/]+[!?]|#+")
"""What a spreadsheet writes in place of a value: #N/A, #NAME?, #BEZUG!, ####."""

HYPHENATED = re.compile(r"(?<=[^\W\d_]{2})[-\u00ad\u2010]\s*\n\s*(?=[a-zß-ÿ]{2})")
"""A word that a line's end parts, as in text copied from a PDF."""
_EXCEL_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_RUN = re.compile(r"([_=*#~.…·-])(?:\s?\1){2,}")
"""A sign repeated to fill a line or to cover what was removed."""
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st",
                            "ﬆ": "st"})  # fmt: skip
_TAGS = (
    "html|head|body|meta|title|style|script|p|br|hr|div|span|b|i|u|em|strong|font|a|ul|ol|li|dl|dt"
    "|dd|table|thead|tbody|tr|td|th|h[1-6]|pre|sup|sub|center|section|paragraph|content|text"
)
_HTML = re.compile(rf"<!doctype|<\?xml|<!\[cdata\[|</?(?:{_TAGS})\b[^<>]*>|</[a-z][\w.:-]*\s*>|<[a-z][\w.:-]*\s*/>",
                   re.IGNORECASE)  # fmt: skip
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,5}|#x[0-9a-f]{2,5});", re.IGNORECASE)
_NO_TEXT = (
    (re.compile(r"%PDF-|JVBERi0"), "a PDF file"),
    (re.compile(r"\(cid:\d+\)"), "glyph numbers of a PDF without its letters"),
    (re.compile(r"PK\x03\x04|UEsDB"), "a zipped document"),
    (re.compile(r"0M8R4KGx|\xd0\xcf\x11\xe0"), "a Word document"),
    (re.compile(r"[A-Za-z0-9+/]{120,}={0,2}|(?:[0-9A-Fa-f]{2}){100,}"), "an encoded file"),
)


class Report(NamedTuple):
    """A cell's plain text, white space tidied, what was taken out, and why it cannot be used."""

    text: str
    markup: tuple[str, ...] = ()
    problem: str | None = None


def is_placeholder(text: str) -> bool:
    """Say whether a text stands for a value that is not there."""
    word = text.strip().casefold()
    bare = word.strip(" .!?:;,()[]<>{}*_-–—")
    return (
        word in _PLACEHOLDERS
        or bare in _PLACEHOLDERS
        or _ERROR_VALUE.fullmatch(text.strip().upper()) is not None
    )


def says_nothing(report: str) -> bool:
    """Say whether a report is too short to say what is seen, without another report beside it."""
    word = report.casefold().strip(" .!?:;,()[]<>-")
    letters = [letter for letter in word if letter.isalpha()]
    return word in _SAYS_NOTHING or len(letters) < 2


def read_report(cell: str) -> Report:
    """Turn a cell into plain text, whatever it was exported as."""
    if cell.isascii() and cell.isprintable() and not _suspicious(cell):
        return Report(" ".join(cell.split()))
    text, markup = cell, []
    if "_x" in text and _EXCEL_ESCAPE.search(text):
        text = _EXCEL_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
        markup.append("Excel's _x000D_")
    for _ in range(3):  # HTML may lie in entities, or RTF in HTML
        if re.match(r"\s*\{\\?rtf", text):
            if "\\" not in text:
                return Report("", (), "RTF that lost its backslashes")
            text = _text_of_rtf(text)
            markup.append("RTF")
        elif _HTML.search(text):
            text = _text_of_html(text)
            markup.append("HTML or XML")
        elif _ENTITY.search(text):
            text = html.unescape(text)
            markup.append("HTML or XML")
        else:
            break
    if HYPHENATED.search(text):
        text = HYPHENATED.sub("", text)
        markup.append("words parted at line ends")
    text = _RUN.sub(r"\1", INVISIBLE.sub("", text.translate(_LIGATURES)))
    for pattern, kind in _NO_TEXT:
        if pattern.search(text[:100_000]):
            return Report("", (), kind)
    plain = " ".join(text.split())
    if markup and cell.strip() and not any(letter.isalnum() for letter in plain):
        return Report(plain, (), f"{markup[-1]} without text")
    return Report(plain, tuple(dict.fromkeys(markup)))


def _suspicious(cell: str) -> bool:
    signs = any(
        sign in cell
        for sign in ("<", "&", "\\", "{rtf", "_x", "(cid", "%PDF", "___", "..", "--", "==", "**")
    )
    return signs or "# # #" in cell or "_ _ _" in cell or (len(cell) > 100 and max(map(len, cell.split()), default=0) > 100)  # fmt: skip


# ---- RTF

_RTF = re.compile(r"\\([a-z]{1,32})(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)",
                  re.IGNORECASE)  # fmt: skip
_RTF_HIDDEN = frozenset(
    ["fonttbl", "colortbl", "stylesheet", "info", "pict", "header", "footer", "headerl", "headerr", "headerf", "footerl", "footerr", "footerf", "object", "fldinst", "listtable", "listoverridetable", "rsidtbl", "generator", "xmlnstbl", "themedata", "datastore", "latentstyles", "filetbl", "revtbl", "bkmkstart", "bkmkend"]
)
"""Groups that hold no text of the document."""
_RTF_SIGNS = {
    "par": "\n", "line": "\n", "row": "\n", "page": "\n", "sect": "\n", "cell": " ", "tab": " ",
    "emdash": "—", "endash": "–", "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "emspace": " ", "enspace": " ", "~": " ", "_": "-", "-": "", "{": "{",
    "}": "}", "\\": "\\", "\n": "\n", "\r": "\n",
}  # fmt: skip


def _text_of_rtf(source: str) -> str:
    """Read the text of an RTF document, also of one that is cut.

    After the Rich Text Format Specification 1.9.1: control words, groups, destinations to leave
    out, signs by code page (``\\'e4``) and by Unicode number with its replacement (``\\u228?``).
    """
    page = re.search(r"\\ansicpg(\d+)", source)
    encoding = f"cp{page[1]}" if page and page[1] not in ("0", "65001") else "cp1252"
    stack: list[tuple[bool, int]] = []
    hidden, replaced, skip = False, 1, 0
    parts: list[str] = []
    codes = bytearray()

    def flush() -> None:
        if codes:
            try:
                parts.append(codes.decode(encoding, "replace"))
            except LookupError:
                parts.append(codes.decode("cp1252", "replace"))
            codes.clear()

    for found in _RTF.finditer(source):
        word, number, code, sign, brace, text = found.groups()
        if code is None:
            flush()
        if brace == "{":
            stack.append((hidden, replaced))
        elif brace == "}":
            hidden, replaced = stack.pop() if stack else (False, 1)
        elif sign == "*" or (word in _RTF_HIDDEN):
            hidden = True
        elif word == "uc":
            replaced = int(number or 1)
        elif word == "u" and number and not hidden:
            parts.append(chr(int(number) % 0x10000))
            skip = replaced
        elif skip and (code or text):
            text = (text or "")[skip:]
            skip = 0 if text else skip - 1
            parts.append("" if hidden else text)
        elif hidden:
            continue
        elif code:
            codes.append(int(code, 16))
        elif text:
            parts.append(text)
        else:
            parts.append(_RTF_SIGNS.get(word or sign or "", ""))
    flush()
    joined = "".join(parts)
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---- HTML and XML


class _TextOf(HTMLParser):
    """Collects the text of a page or an XML document; each tag but those within words parts it."""

    within_words = frozenset(("b", "i", "u", "em", "strong", "font", "span", "sup", "sub", "a"))
    hidden_tags = frozenset(("style", "script", "head", "title", "template"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in self.hidden_tags
        if tag == "body":
            self.hidden = 0
        if tag not in self.within_words:
            self.parts.append(" ")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in self.hidden_tags))
        if tag not in self.within_words:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)

    def unknown_decl(self, data: str) -> None:
        if data.startswith("CDATA["):
            self.handle_data(data.removeprefix("CDATA["))


def _text_of_html(source: str) -> str:
    is_xml = source.lstrip().startswith("<?xml") or "<ClinicalDocument" in source
    parser = _TextOf()
    if is_xml:
        parser.hidden_tags = frozenset(("style", "script"))
    parser.feed(source)
    parser.close()
    return "".join(parser.parts)


# ---- what reports have in common

FEWEST_REPORTS = 8
"""Distinct reports below which a common beginning may be chance."""
FEWEST_WORDS = 6
OF_EACH, OF_ALL = 0.2, 0.75
"""Shares of the distinct reports that have one beginning, and that have one of all found."""


def find_common_beginnings(reports: Sequence[str]) -> list[list[str]]:
    """Find the words with which most distinct reports begin: letterheads or templates.

    Numbers count as equal, so that dates and sizes do not hide one. It ends where a sentence or a
    label (``Findings:``) does, so that "The B-scan shows" before each finding is none.

    Returns:
        Their words, at least :data:`FEWEST_WORDS` each, numbers as ``0``; none where reports differ
        from their beginning on.
    """
    remaining = [_plain_words(report) for report in dict.fromkeys(reports)]
    total, found = len(remaining), []
    if total < FEWEST_REPORTS:
        return []
    while beginning := _most_common_beginning(remaining, OF_EACH * total):
        found.append(beginning)
        remaining = [words for words in remaining if words[: len(beginning)] != beginning]
    return found if len(remaining) <= (1 - OF_ALL) * total else []


def _most_common_beginning(reports: Sequence[list[str]], least: float) -> list[str]:
    beginning: list[str] = []
    sharing = list(reports)
    while True:
        place = len(beginning)
        counts = Counter(words[place] for words in sharing if len(words) > place)
        word, count = counts.most_common(1)[0] if counts else ("", 0)
        if count < max(least, 2):
            break
        sharing = [words for words in sharing if len(words) > place and words[place] == word]
        beginning.append(word)
    while beginning and beginning[-1][-1] not in ".:;!?。：；|>-_":
        beginning.pop()
    return beginning if len(beginning) >= FEWEST_WORDS else []


def without_beginning(report: str, beginnings: Sequence[list[str]]) -> str:
    """Take a common beginning off a report that has one and more."""
    for beginning in beginnings:
        words = report.split(maxsplit=len(beginning))
        if len(words) > len(beginning) and _plain_words(" ".join(words[:-1])) == beginning:
            return words[-1]
    return report


def _plain_words(report: str) -> list[str]:
    return re.sub(r"\d+", "0", report[:4000]).casefold().split()
