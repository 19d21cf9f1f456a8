"""Text out of documents that are written with marks: RTF, HTML and XML."""

from __future__ import annotations

import re
from html.parser import HTMLParser


def is_rtf(text: str) -> bool:
    """Say whether a text is the source of an RTF document."""
    return text.lstrip().startswith("{\\rtf")


def text_of_rtf(source: str) -> str:
    """Read the text of an RTF document, also of one that is cut; of a damaged one, nothing."""
    from striprtf.striprtf import rtf_to_text

    # Pages that are none, as some writers have them: what they write is Windows'.
    page = re.sub(r"\\ansicpg(?:0|65001)(?!\d)", r"\\ansicpg1252", source)
    try:
        text = rtf_to_text(page, errors="replace").replace("|", " ")  # between cells of a table
    except (ValueError, OverflowError):
        return ""
    # Signs beyond 16 bits come as two.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
