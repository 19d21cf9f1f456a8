"""In which encoding a text file is written: read where one reading makes sense, asked where two do.

A file says its encoding by a byte order mark, or by being valid UTF-8, which text in another
encoding hardly ever is. Of the others nothing is certain: the same bytes are words in several. Each
candidate's reading is judged by its signs: accented letters have to be those of one language and
stand where they do in words, and characters of other scripts the frequent ones of theirs.
charset-normalizer was tried: it takes Polish for cp1252 and Japanese for Korean, and never asks.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retfiner.common.errors import InputError

BLOCK = 1 << 20
SAMPLE = 1 << 18
"""Bytes of the lines with other signs than ASCII's by which an encoding is judged."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = (
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíóúüñçàèòïãâêõôºª",
    "àèéìíîòóùú",
    "åäöæøéü",
    "éëïóöüèáíúê",
)
_CENTRAL = (
    "ąćęłńóśźż",
    "áčďéěíňóřšťúůýž",
    "áäčďéíľňóôšťúýž",
    "áéíóöőúüű",
    "ăâîșțşţ",
    "čćđšž",
    "äöüß",
)
_LATIN = {
    "cp1252": _WESTERN,
    "iso8859_15": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1254": ("çğıİöşüâîû",),
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
}
"""Letters beside ASCII's of the languages that are written in each encoding."""
_SIGNS = frozenset("–—‐‑‘’‚“”„…•€µμ°²³¹±×÷½¼¾«»§©®™¿¡´·‰≥≤→\u00a0\u00ad")
_QUOTES = frozenset("–—‐‘‚“”„…«»¿¡®™%©€§\u00a0")
"""Signs that stand at a word's beginning or end, and not within one."""
_OF_UNIT = re.compile(r".?\d ?[^\x00-\x7f]m(?:\W|$)", re.DOTALL)
"""A letter that stands where µ does: 250 µm."""
_CYRILLIC = ("cp1251", "koi8_r", "cp866", "iso8859_5")
_GREEK = ("cp1253", "iso8859_7", "cp737")
_ARABIC = ("cp1256", "iso8859_6")
_SCRIPTS = (
    dict.fromkeys(_CYRILLIC, "CYRILLIC")
    | dict.fromkeys(_GREEK, "GREEK")
    | dict.fromkeys(_ARABIC, "ARABIC")
)
_FREQUENT = {"CYRILLIC": "оеаинтсрвлі", "GREEK": "αοιεστνηρς", "ARABIC": "اليمونترةبع"}
"""About the ten most frequent letters, six in ten of a text's; four in ten of a false reading's."""
_RARE = {"CYRILLIC": "юэхщфцъ", "GREEK": "ξψζβ", "ARABIC": "ظغذثپژگچ"}
"""Letters that are one in twenty of a text's at most; one in five of a false reading's."""
_EAST = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
_HAN = frozenset(
    "的一是不了在有人中大上个為为以要時时来用可见見無无未下左右眼視视網网膜黄黃斑区區部厚度正常增积積液及與与出水肿腫"
)
"""Frequent characters: one in ten of a text's, one in a hundred of a false reading's."""


class Reading(NamedTuple):
    """An encoding and the most frequent words that other signs than ASCII's give in it."""

    encoding: str
    words: list[str]


def find_encoding(path: Path) -> str:
    """Name the encoding of a text file, as Python calls it.

    Raises:
        InputError: If the file makes sense in several encodings, or in none; the message shows the
            readings, and the flag that decides.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head.count(0) > 0.02 * len(head):  # two bytes a sign, and no mark: by where its lines end
        two = head[: len(head) // 2 * 2]
        ends = {
            name: len(re.findall("[\r\n]", two.decode(name, "replace")))
            for name in ("utf-16-le", "utf-16-be")
        }
        if any(ends.values()):
            return max(ends, key=lambda name: ends[name])
    if _is_utf8(path):
        return "utf-8"
    sample = b"".join(_lines_beyond_ascii(path))
    _require_no_mixture(path, sample)
    readings = plausible_readings(sample)
    if len(readings) == 1:
        return readings[0].encoding
    raise _unclear(path, readings, sample)


def require_encoding(name: str) -> str:
    """Check that Python knows an encoding by the name that the user gave; return its own name.

    Raises:
        InputError: If it does not, or it is none of text.
    """
    try:
        codecs.lookup(name)
        "a".encode(name)
        return name
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(
            "--table_encoding names no encoding",
            got=name,
            expected="utf-8, utf-16, cp1252 (Windows), mac_roman, cp1250, cp1251, gb18030, ...",
        ) from error


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while block := file.read(BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _lines_beyond_ascii(path: Path) -> Iterator[bytes]:
    size = 0
    with path.open("rb") as file:
        while size < SAMPLE and (line := file.readline(SAMPLE)):
            if not line.isascii():
                size += len(line)
                yield line


def _require_no_mixture(path: Path, sample: bytes) -> None:
    text = sample.decode("utf-8", "surrogateescape")
    stray = sum("\udc80" <= sign <= "\udcff" for sign in text)
    valid = sum(not sign.isascii() for sign in text) - stray
    lines = [_decodes(line, "utf-8") for line in sample.splitlines() if not line.isascii()]
    # By chance, hardly a line of another encoding is valid UTF-8.
    if valid <= 3 * stray and sum(lines) <= 0.2 * len(lines):
        return
    with path.open("rb") as file:
        rows = [n for n, line in enumerate(file, 1) if not _decodes(line, "utf-8")]
    listed = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    raise InputError(
        f"{path} is UTF-8 but for {len(rows)} of its lines, which are written in another encoding",
        got=f"lines {listed}",
        expected="one encoding for the whole file",
        remedy="export the table anew, or mend these lines",
    )


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def plausible_readings(sample: bytes) -> list[Reading]:
    """List the encodings in which bytes make words; of those that read alike, the first."""
    found: dict[str, Reading] = {}
    for encoding in (*_LATIN, *_SCRIPTS, *_EAST):
        if not _decodes(sample, encoding):
            continue
        text = sample.decode(encoding)
        if text not in found and _makes_sense(text, encoding):
            found[text] = Reading(encoding, frequent_words(text))
    return list(found.values())


def frequent_words(text: str) -> list[str]:
    """Return the three most frequent words with other letters than ASCII's: hardly a name."""
    words = Counter(re.findall(r"\w*[^\W\x00-\x7f]\w*", text))
    return [word[:12] for word, _ in words.most_common(3)]


def _makes_sense(text: str, encoding: str) -> bool:
    others = [sign for sign in text if not sign.isascii()]
    if any(unicodedata.category(sign) in ("Cc", "Co", "Cn") for sign in others):
        return False
    if encoding in _LATIN:
        return max(_fit(text, letters) for letters in _LATIN[encoding]) > 0.95 * len(others)
    beside_letters = len(re.findall(r"(?<=[a-z])[^\W\x00-\x7f]|[^\W\x00-\x7f](?=[a-z])", text))
    if encoding in _EAST:
        enclosed = len(re.findall(r"(?<=[a-z])[^\W\x00-\x7f](?=[a-z])", text))
        return enclosed < 0.02 * len(others) and _is_east_asian(others, encoding)
    if beside_letters > 0.02 * len(others):
        return False
    return _is_alphabetic(text, others, _SCRIPTS[encoding])


def _fit(text: str, letters: str) -> int:
    """Count the signs that are a language's letters where letters stand, or signs between words."""
    in_word = re.compile(r"(?<=[a-zA-Z])[^\W\x00-\x7f]|[^\W\x00-\x7f](?=[a-zA-Z])|[^\x00-\x7f]")
    count = 0
    for found in in_word.finditer(text):
        sign, start = found[0], found.start()
        before, after = text[start - 1 : start], text[start + 1 : start + 2]
        if sign in _SIGNS:
            count += (
                sign in "’µμ°\u00ad‑·"
                or (sign in "²³" and not after.isalpha())
                or not (before.isalpha() or after.isalpha())
            )
            count += sign in _QUOTES and before.isalpha() != after.isalpha()
        elif sign in letters or sign.lower() in letters:
            is_unit = _OF_UNIT.fullmatch(text[max(0, start - 2) : start + 3])
            count += not (is_unit or (sign.isupper() and before.islower()))
    return count


def _is_alphabetic(text: str, others: list[str], script: str) -> bool:
    letters = [sign for sign in others if unicodedata.name(sign, "").startswith(script)]
    signs = sum(sign in _SIGNS or sign == "№" for sign in others)
    if len(letters) < 2 or len(letters) + signs < 0.95 * len(others):
        return False
    plain = [unicodedata.normalize("NFD", sign.lower())[0] for sign in letters]
    frequent = sum(sign in _FREQUENT[script] for sign in plain)
    rare = sum(sign in _RARE[script] for sign in plain)
    flips = sum(a.islower() and b.isupper() for a, b in itertools.pairwise(text))
    is_usual = frequent > 0.5 * len(letters) and rare < 0.12 * len(letters)
    return is_usual and flips < 0.01 * len(letters)


def _is_east_asian(others: list[str], encoding: str) -> bool:
    names = [unicodedata.name(sign, "") for sign in others]
    scripts = Counter(name.split(" ")[0].split("-")[0] for name in names)
    han, kana = scripts["CJK"], scripts["HIRAGANA"] + scripts["KATAKANA"]
    letters = han + kana + scripts["HANGUL"]
    known = letters + scripts["FULLWIDTH"] + scripts["IDEOGRAPHIC"] + sum(
        sign in _SIGNS or not sign.isalnum() for sign in others
    )  # fmt: skip
    if letters < 2 or known < 0.9 * len(others) or scripts["HALFWIDTH"]:
        return False
    if encoding == "cp949":
        return min(scripts["HANGUL"], _common(others, encoding)) > 0.9 * letters
    if encoding in ("cp932", "euc_jp"):
        return kana > 0.2 * letters and _common(others, encoding) > 0.9 * letters - kana
    frequent = sum(sign in _HAN for sign in others)
    return kana == 0 and _common(others, encoding) > 0.9 * letters and frequent > 0.05 * letters


_COMMON_LEADS = {"gb18030": (0xB0, 0xD7), "big5": (0xA4, 0xC6), "cp932": (0x88, 0x97),
                 "euc_jp": (0xB0, 0xCF), "cp949": (0xB0, 0xC8)}  # fmt: skip
"""First bytes of the characters that each standard counts as frequent."""


def _common(signs: list[str], encoding: str) -> int:
    low, high = _COMMON_LEADS[encoding]
    strict = {"gb18030": "gb2312", "cp949": "euc_kr"}.get(encoding, encoding)
    encoded = (sign.encode(strict, "ignore") for sign in signs)
    return sum(len(code) == 2 and low <= code[0] <= high for code in encoded)


def _unclear(path: Path, readings: list[Reading], sample: bytes) -> InputError:
    shown = readings or [
        Reading(encoding, frequent_words(sample.decode(encoding)))
        for encoding in ("cp1252", "cp1250", "cp1251", "gb18030", "cp932")
        if _decodes(sample, encoding)
    ]
    lines = [f"{reading.encoding}: {', '.join(reading.words) or 'signs'}" for reading in shown]
    makes = "makes sense in several encodings" if readings else "is in no encoding that is known"
    one = shown[0].encoding if shown else "NAME"
    return InputError(
        f"{path} is not UTF-8 and {makes}",
        got="frequent words would be, in\n            " + "\n            ".join(lines),
        expected="UTF-8, or an encoding in which the words are words",
        remedy=f"say which with --table_encoding {one}, or save it as CSV UTF-8: "
        f"iconv -f {one} -t utf-8 in.csv > out.csv",
    )


_IN_NO_TEXT = re.compile("[\\x80-\\x9f\\ufffd]")
_FOR_LETTERS = re.compile(r"[a-zß-ÿ]\?[a-zß-ÿ]|(?:[=%][0-9A-F]{2}){2}|%20")
"""A question mark for a letter, and letters by their codes: =C3=BC, %20."""


def misread(text: str) -> bool:
    """Say whether text was decoded wrongly once: UTF-8 as cp1252, or cp1252 as Latin-1.

    Control signs from 0x80 to 0x9F stand in no text.
    """
    if any(sign in text for sign in "?=%") and _FOR_LETTERS.search(text):
        return True
    if text.isascii():
        return False
    if _IN_NO_TEXT.search(text):
        return True
    return any(_decodes_as_utf8(run) for run in re.findall(r"[^\x00-\x7f]{2,}", text))


def _decodes_as_utf8(run: str) -> bool:
    for encoding in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeError):
            run.encode(encoding).decode("utf-8")
            return True
    return False


def misread_as_western(text: str) -> Reading | None:
    """Find what text that was read as cp1252 really is, if as that it makes no sense.

    It takes some hundred signs to tell, a table's and not a report's.
    """
    for encoding in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeEncodeError):
            data = text.encode(encoding)
            others = sum(not sign.isascii() for sign in text)
            if max(_fit(text, letters) for letters in _WESTERN) > 0.9 * others:
                return None
            readings = [r for r in plausible_readings(data) if data.decode(r.encoding) != text]
            return readings[0] if readings else None
    return None
