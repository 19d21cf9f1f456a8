"""Text out of documents that are written with marks: RTF, HTML, XML, HL7 messages, base64."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser


def is_rtf(text: str) -> bool:
    """Say whether a text is the source of an RTF document, or has one behind its own words."""
    return "{\\rtf" in text or "{\\\\rtf" in text


def text_of_rtf(source: str) -> str:
    """Read the text of RTF documents, also of one that is cut; of a damaged one, nothing."""
    if "{\\\\rtf" in source:  # with its backslashes doubled, as JSON and SQL write them
        source = source.replace("\\\\", "\\")
    before, *documents = source.split("{\\rtf")
    return " ".join([before.strip(' "'), *(_text_of_rtf("{\\rtf" + each) for each in documents)])


def _text_of_rtf(source: str) -> str:
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


_CDA_BODY = re.compile(r"<(?:\w+:)?structuredBody\b")


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
    is_xml = source.lstrip().startswith("<?xml") or "ClinicalDocument" in source
    parser = _TextOf()
    if clinical := _CDA_BODY.search(source):  # above it stand patient, author, and clinic
        source = source[clinical.start() :]
        parser.hidden_tags |= {"entry"}
    if is_xml:
        parser.hidden_tags -= {"head", "title", "template"}
    parser.feed(source)
    parser.close()
    return "".join(parser.parts)


_HL7 = re.compile(r"\s*(?:MSH|PID|OBR|OBX)\|")
_SEGMENT = re.compile(r"(?:^|(?<=\s))([A-Z][A-Z0-9]{2})\|")
_CODED = ("CE", "CWE")


def is_hl7(text: str) -> bool:
    """Say whether a text is an HL7 message of version 2, or segments of one."""
    return _HL7.match(text) is not None


def text_of_hl7(message: str) -> str:
    """Read the observations of a message and the notes on them; whose they are is left out."""
    parts = _SEGMENT.split(message)
    texts = []
    for name, rest in zip(parts[1::2], parts[2::2], strict=True):
        fields = ["", *rest.split("|"), *[""] * 7]
        if name == "NTE":
            texts.append(fields[3])
        elif name == "OBX" and fields[2] == "NM":
            texts.append(f"{_part(fields[3], 1)}: {fields[5]} {fields[6]}")
        elif name == "OBX" and fields[2] in _CODED:
            texts += [_part(value, 1) for value in fields[5].split("~")]
        elif name == "OBX" and fields[2] == "ED":
            texts.append(text_of_base64(_part(fields[5], 4)) or "")
        elif name == "OBX":
            texts += fields[5].split("~")
    return "\n".join(texts)


def _part(value: str, place: int) -> str:
    parts = value.split("^")
    return parts[min(place, len(parts) - 1)]


_ESCAPE = re.compile(
    r"\\(?:(?P<sign>[FSTRE])\\|(?P<style>[HN])\\|(?:\.[a-z]{2}[-+\d]*|X0[AD])\\"
    r"|u(?P<code>[0-9a-f]{4})|r\\n|[rnt])"
)
"""Line breaks and signs between backslashes in HL7 (2.7, chapter 2), after one in JSON and SQL."""
_SIGNS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
_FOREIGN_PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\|(?:^|\s)\\\\\w")


def has_escapes(text: str) -> bool:
    """Say whether a text has line breaks or signs that are written as others."""
    found = "\\" in text and _ESCAPE.search(text) is not None
    return found and _FOREIGN_PATH.search(text) is None


def without_escapes(text: str) -> str:
    """Write line breaks and signs as themselves."""
    plain = _ESCAPE.sub(_meaning, text)  # signs beyond 16 bits come as two
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _meaning(found: re.Match[str]) -> str:
    if found["code"]:
        return chr(int(found["code"], 16))
    return "" if found["style"] else _SIGNS.get(found["sign"] or "", "\n")


_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
FEWEST_BASE64 = 24
"""Characters; a shorter text may be a word."""


def text_of_base64(text: str) -> str | None:
    """Read text that was written in base64; None where it is no text, or was not."""
    if len(text) < FEWEST_BASE64 or _BASE64.fullmatch(text) is None:
        return None
    written = "".join(text.split())
    if len(written) < FEWEST_BASE64 or len(written) % 4:
        return None
    try:
        read = base64.b64decode(written).decode("utf-8")
    except (ValueError, UnicodeDecodeError):
        return None
    return read if " " in read and all(s.isprintable() or s.isspace() for s in read) else None
