"""Who is the same person: patients' names as tables damage them, brought to one form.

Spreadsheets turn 0001 into 1 and 1 into 1.0, put thousands separators into numbers and blanks
around names; people write P1 and p1. What remains of a name without all that is its key. Two names
of one key are probably one person, and to take them for two would let a person be trained on and
tested with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0e-\\x1f\\x7f\\xad\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2064\\ufeff]"
)
"""Signs that take no room and mean nothing in a name: zero-width spaces, byte order marks, NUL."""

_THOUSANDS = re.compile(r"\d{1,3}(?:[,.'’ ]\d{3})+")
_DECIMALS = re.compile(r"(\d+)[.,]0+")
_QUOTES = "'\"`’‘“”„«»"
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))


def tidy(name: str) -> str:
    """Take off what nobody sees: blanks around a name, invisible signs, Excel's apostrophe."""
    return INVISIBLE.sub("", name).strip().removeprefix("'")


def patient_key(name: str) -> str:
    """Return what names of one person share, however a spreadsheet or a person wrote them."""
    text = unicodedata.normalize("NFKC", tidy(name)).strip(_QUOTES + " ").translate(_DASHES)
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"\D", "", text)
    decimals = _DECIMALS.fullmatch(text)
    text = "".join((decimals[1] if decimals else text).casefold().split())
    if not text.isascii():  # numerals of other scripts
        text = re.sub(r"\d", lambda digit: str(int(digit[0])), text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text) or text


def one_spelling(names: Sequence[str]) -> list[str]:
    """Write each patient as where its key first occurs; an empty name stays empty."""
    first: dict[str, str] = {}
    keys = {name: patient_key(name) for name in dict.fromkeys(names)}
    for name, key in keys.items():
        first.setdefault(key, name)
    return [first[keys[name]] for name in names]
