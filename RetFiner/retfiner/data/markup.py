"""Text out of documents that are written with marks: RTF, HTML and XML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_RTF = re.compile(
    r"\\(?P<word>[a-z]{1,32})(?P<number>-?\d{1,10})?[ ]?|\\'(?P<code>[0-9a-f]{2})"
    r"|\\(?P<sign>[^a-z])|(?P<brace>[{}])|[\r\n]+|(?P<text>[^\\{}\r\n]+)",
    re.IGNORECASE,
)
_HIDDEN = """
    fonttbl colortbl stylesheet info pict header footer headerl headerr headerf footerl footerr
    footerf object fldinst listtable listoverridetable rsidtbl generator xmlnstbl themedata
    datastore latentstyles filetbl revtbl bkmkstart bkmkend
"""
"""Groups that hold no text of the document."""
_SIGNS = {
    "par": "\n", "line": "\n", "row": "\n", "page": "\n", "sect": "\n", "cell": " ", "tab": " ",
    "emdash": "—", "endash": "–", "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "emspace": " ", "enspace": " ", "~": " ", "_": "-", "-": "", "{": "{",
    "}": "}", "\\": "\\", "\n": "\n", "\r": "\n",
}  # fmt: skip


def is_rtf(text: str) -> bool:
    """Say whether a text is the source of an RTF document."""
    return text.lstrip().startswith("{\\rtf")


def text_of_rtf(source: str) -> str:
    """Read the text of an RTF document, also of one that is cut."""
    reader = _RTFReader(source)
    for found in _RTF.finditer(source):
        reader.take(found)
    reader.flush()
    joined = "".join(reader.parts)  # signs beyond 16 bits come as two
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _RTFReader:
    r"""Follows the groups of a document, after the Rich Text Format Specification 1.9.1.

    Signs come as they are, by code page (``\'e4``), or by Unicode number (``\u228?``) with what
    replaces them where Unicode is not known, ``\uc1`` signs long.
    """

    def __init__(self, source: str) -> None:
        page = re.search(r"\\ansicpg(\d+)", source)
        self.encoding = f"cp{page[1]}" if page and page[1] not in ("0", "65001") else "cp1252"
        self.parts: list[str] = []
        self.codes = bytearray()
        self.stack: list[tuple[bool, int]] = []
        self.hidden, self.replaced, self.skip = False, 1, 0

    def take(self, found: re.Match[str]) -> None:
        word, code, brace = found["word"], found["code"], found["brace"]
        if code is None:
            self.flush()
        if brace == "{":
            self.stack.append((self.hidden, self.replaced))
        elif brace == "}":
            self.hidden, self.replaced = self.stack.pop() if self.stack else (False, 1)
        elif word is not None:
            self._take_word(word.lower(), found["number"])
        elif found["sign"] == "*":
            self.hidden = True
        elif not self.hidden:
            self._take_text(code, found["text"] or _SIGNS.get(found["sign"] or "", ""))

    def _take_word(self, word: str, number: str | None) -> None:
        if word in _HIDDEN.split():
            self.hidden = True
        elif word == "uc":
            self.replaced = int(number or 1)
        elif self.hidden:
            return
        elif word == "u" and number:
            self.parts.append(chr(int(number) % 0x10000))
            self.skip = self.replaced
        else:
            self.parts.append(_SIGNS.get(word, ""))

    def _take_text(self, code: str | None, text: str) -> None:
        if code and self.skip:
            self.skip -= 1
        elif code:
            self.codes.append(int(code, 16))
        else:
            self.parts.append(text[self.skip :])
            self.skip = max(0, self.skip - len(text))

    def flush(self) -> None:
        try:
            self.parts.append(self.codes.decode(self.encoding, "replace"))
        except LookupError:
            self.parts.append(self.codes.decode("cp1252", "replace"))
        self.codes.clear()


_TAGS = (
    "html|head|body|meta|title|style|script|p|br|hr|div|span|b|i|u|em|strong|font|a|ul|ol|li|dl|dt"
    "|dd|table|thead|tbody|tr|td|th|h[1-6]|pre|sup|sub|center|section|paragraph|content|text"
)
_HTML = re.compile(
    rf"<!doctype|<\?xml|<!\[cdata\[|</?(?:{_TAGS})\b[^<>]*>|</[a-z][\w.:-]*\s*>"
    r"|<[a-z][\w.:-]*\s*/>",
    re.IGNORECASE,
)


def is_html(text: str) -> bool:
    """Say whether a text has tags of HTML or XML; "CST <250 µm" has none."""
    return "<" in text and _HTML.search(text) is not None


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


def text_of_html(source: str) -> str:
    """Read the text of a page or an XML document, without styles and scripts."""
    is_xml = source.lstrip().startswith("<?xml") or "<ClinicalDocument" in source
    parser = _TextOf()
    if is_xml:
        parser.hidden_tags = frozenset(("style", "script"))
    parser.feed(source)
    parser.close()
    return "".join(parser.parts)
