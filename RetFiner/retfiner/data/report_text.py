"""From a cell to the plain text of a report: markup taken out, and what is no text named.

Reports come as RTF out of dictation systems, as HTML or XML out of clinical documents, copied from
PDFs, and with the traces of spreadsheets. A text encoder would read fonts and tags as words.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from retfiner.common.patient_names import INVISIBLE
from retfiner.data.markup import (
    has_escapes,
    is_hl7,
    is_html,
    is_rtf,
    text_of_base64,
    text_of_hl7,
    text_of_html,
    text_of_rtf,
    without_escapes,
)
from retfiner.data.patient_ids import MONTH
from retfiner.text.words import IDEOGRAPHS, KANA, PARTED, without_needless_blanks

HYPHENATED = re.compile(r"(?<=[^\W\d_]{2})[-\u00ad\u2010]\s*\n\s*(?=[a-zß-ÿ]{2})")
"""A word that a line's end parts, as in text copied from a PDF."""
_SUSPICIOUS = re.compile(r"[<&\\]|\{rtf|_x|\(cid|%PDF|([_=*#~.-])\s?\1|[A-Z]{3}\||\S{24}")
"""What plain text out of a table has not, or seldom: only then is it looked at closely."""
_EXCEL_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_RUN = re.compile(r"([_=*#~.…·-])(?:\s?\1){2,}")
"""A sign repeated to fill a line or to cover what was removed."""
_SAME = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
    | {chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F) if chr(code).isalnum()}
)
"""Ligatures, and the letters and numerals that are as wide as Chinese ones."""
_PAGE = re.compile(
    r"^\s*[-–]?\s*(?:(?:page|seite|página|pagina|pag\.|p\.|s\.)\s*\d+(?:\s*(?:/|of|von|de|di|sur)\s*"
    r"\d+)?|第\s*\d+\s*[页頁].*)\s*[-–]?\s*$",
    re.IGNORECASE | re.MULTILINE,
)
"""A line of a PDF that counts pages."""
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,5}|#x[0-9a-f]{2,5});", re.IGNORECASE)
_NO_TEXT = (
    (re.compile(r"\{rtf\d"), "RTF that lost its backslashes"),
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


def read_report(cell: str) -> Report:
    """Turn a cell into plain text, whatever it was exported as."""
    if cell.isascii() and cell.isprintable() and not _SUSPICIOUS.search(cell):
        return Report(" ".join(cell.split()))
    text, markup = cell, []
    if _EXCEL_ESCAPE.search(text):
        text = _EXCEL_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
        markup.append("Excel's _x000D_")
    text, kinds = _without_markup(INVISIBLE.sub("", text))
    markup += kinds
    if _PAGE.search(text):
        text = _PAGE.sub("", text)
        markup.append("numbers of pages")
    if HYPHENATED.search(text):
        text = HYPHENATED.sub("", text)
        markup.append("words parted at line ends")
    text = unicodedata.normalize("NFC", _RUN.sub(r"\1", INVISIBLE.sub("", text.translate(_SAME))))
    for pattern, kind in _NO_TEXT:
        if pattern.search(text[:100_000]):
            return Report("", (), kind)
    plain = " ".join(text.split())
    if markup and not any(letter.isalnum() for letter in plain):
        return Report(plain, (), f"{markup[-1]} without text")
    return Report(plain, tuple(dict.fromkeys(markup)))


def _without_markup(text: str) -> tuple[str, list[str]]:
    kinds = []
    for _ in range(4):  # HTML may lie in entities, or RTF in base64 in a message
        if is_hl7(text):
            text = text_of_hl7(text)
            kinds.append("HL7")
        elif is_rtf(text):
            text = text_of_rtf(text)
            kinds.append("RTF")
        elif is_html(text):
            text = text_of_html(text)
            kinds.append("HTML or XML")
        elif _ENTITY.search(text):
            text = html.unescape(text)
            kinds.append("HTML or XML")
        elif has_escapes(text):
            text = without_escapes(text)
            kinds.append("escaped line breaks and signs")
        elif (decoded := text_of_base64(text)) is not None:
            text = decoded
            kinds.append("base64")
        else:
            break
    return text, kinds


# ---- what reports have in common

FEWEST_REPORTS = 8
"""Distinct reports below which a common beginning may be chance."""
MOST_REPORTS = 20_000
"""Of more reports, so many are compared."""
FEWEST_WORDS = 6
OF_EACH, OF_ALL = 0.2, 0.75
"""Shares of the distinct reports that have one beginning, and that have one of all found."""

_HAN = IDEOGRAPHS + KANA
"""Characters of texts without blanks, of which each counts as half a word."""
_MONTH = re.compile(rf"(?<=0)(\.?\s+){MONTH}(?=\s)|\b{MONTH}(?=,?\s+0)", re.IGNORECASE)


def find_common_beginnings(reports: Sequence[str]) -> list[list[str]]:
    """Find the words with which most distinct reports begin: letterheads or templates.

    Numbers count as equal, and months in dates, so that they do not hide one. It ends where a
    sentence or a label (``Findings:``) does, so that "The B-scan shows" before each finding is
    none; and it is no whole report, of which the numbers are what is found.

    Returns:
        Their words, at least :data:`FEWEST_WORDS` each, numbers as ``0``; none where reports differ
        from their beginning on.
    """
    distinct = list(dict.fromkeys(reports))
    remaining = [_plain_words(report) for report in distinct[:: 1 + len(distinct) // MOST_REPORTS]]
    total, found = len(remaining), []
    if total < FEWEST_REPORTS:
        return []
    while beginning := _most_common_beginning(remaining, OF_EACH * total):
        found.append(beginning)
        remaining = [words for words in remaining if words[: len(beginning)] != beginning]
    return found if len(remaining) <= (1 - OF_ALL) * total else []


def _most_common_beginning(reports: Sequence[list[str]], least: float) -> list[str]:
    beginning: list[str] = []
    sharing, split = list(reports), 0
    while True:
        place = len(beginning)
        counts = Counter(words[place] for words in sharing if len(words) > place)
        word, count = counts.most_common(1)[0] if counts else ("", 0)
        if count < max(least, 2):
            break
        split = place if count < 0.9 * len(sharing) else split
        sharing = [words for words in sharing if len(words) > place and words[place] == word]
        beginning.append(word)
    if 2 * sum(len(words) == len(beginning) for words in sharing) >= len(sharing):
        beginning = beginning[:split]  # whole reports, from where they differ from others
    while beginning and beginning[-1][-1] not in ".:;!?。：；|>-_":
        beginning.pop()
    characters = sum(re.match(f"[{_HAN}]", word) is not None for word in beginning)
    return beginning if len(beginning) - characters / 2 >= FEWEST_WORDS else []


def without_beginning(report: str, beginnings: Sequence[list[str]]) -> str:
    """Take a common beginning off a report that has one and more."""
    words = _plain_words(report)
    for beginning in beginnings:
        count = len(beginning)
        if len(words) > count and words[:count] == beginning:
            *_, last = islice(PARTED.finditer(report), count)
            return report[last.end() :].strip()
    return report


def as_text(beginning: Sequence[str]) -> str:
    """Write the words of a beginning as a text has them."""
    return without_needless_blanks(" ".join(beginning))


def _plain_words(report: str) -> list[str]:
    text = re.sub(r"\d+", "0", report[:4000]).casefold()
    return PARTED.findall(_MONTH.sub(r"\g<1>0", text))
