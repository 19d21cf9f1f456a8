"""Words, also where no blanks part them: each Chinese or Japanese character counts as one."""

import re

IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff"
KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff"
"""Characters that are written without blanks between words, as parts of a regular expression."""

PARTED = re.compile(rf"[{IDEOGRAPHS}{KANA}]|[^\s{IDEOGRAPHS}{KANA}]+")
"""What blanks part, and each of these characters."""
WORD_OR_SIGN = re.compile(rf"[{IDEOGRAPHS}{KANA}]|[^\W{IDEOGRAPHS}{KANA}]+|[^\w\s]")
"""The same, and each sign by itself."""

_WORD = re.compile(rf"[{IDEOGRAPHS}{KANA}]|[^\W{IDEOGRAPHS}{KANA}]+")
_WIDE = rf"[{IDEOGRAPHS}{KANA}\u3001-\u303f\uff01-\uff65]"  # and their punctuation
_NEEDLESS_BLANK = re.compile(rf"(?<={_WIDE}) | (?={_WIDE})")


def split_words(text: str) -> list[str]:
    """List the words of a text, without what stands between them."""
    return _WORD.findall(text)


def without_needless_blanks(text: str) -> str:
    """Take out the blanks beside characters that are written without."""
    return text if text.isascii() else _NEEDLESS_BLANK.sub("", text)
