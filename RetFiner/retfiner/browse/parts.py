"""Pieces of the page. What comes from a table or a model is shown as it is, never as markup."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retfiner.browse.collection import Array, Collection
from retfiner.browse.nearest import Near
from retfiner.common.errors import InputError

STYLE = """<style>
.stMainBlockContainer { padding-top: 2rem; }
.rf-table { border-collapse: collapse; width: 100%; }
.rf-table th { text-align: left; font-weight: 600; font-size: .85rem; opacity: .75; }
.rf-table th, .rf-table td { padding: .4rem .6rem .4rem 0; vertical-align: top;
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, .3); }
.rf-table .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.rf-own { font-weight: 600; }
.rf-note { font-size: .85rem; opacity: .75; margin: .2rem 0; }
.rf-text { margin: .2rem 0 .6rem; overflow-wrap: anywhere; }
</style>"""

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def literal(text: str) -> str:
    """Write plain text so that Streamlit's Markdown shows it as it is."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def said(error: InputError) -> str:
    """Write a user's error for the page, a line for each of its parts."""
    return "  \n".join(literal(line) for line in str(error).splitlines())


def text(words: str) -> str:
    """Write a text as a paragraph of HTML."""
    return f'<p class="rf-text">{html.escape(words)}</p>'


def heading(words: str) -> str:
    """Write a heading of HTML over a text."""
    return f"<b>{html.escape(words)}</b>"


def note(words: str) -> str:
    """Write a remark as a paragraph of HTML, in small letters."""
    return f'<p class="rf-note">{html.escape(words)}</p>'


def number(value: float) -> str:
    """Write a score with three decimals and a true minus."""
    return f"{value:.3f}".replace("-", "−")


def scores(near: Near) -> str:
    """Write what brought something near, in a line."""
    match = "" if near.match is None else f" · match {number(near.match)}"
    return f"cosine {number(near.cosine)}{match}"


def report_table(collection: Collection, found: Sequence[Near], own: int | None) -> str:
    """Write the nearest reports as a table of HTML.

    Args:
        collection: Where they are from.
        found: The reports, the best first.
        own: The report of the B-scan itself, which is marked; None if there is none.
    """
    counts = np.bincount(collection.report_of, minlength=len(collection.reports))
    has_match = any(near.match is not None for near in found)
    rows = []
    for near in found:
        mark = ' <span class="rf-note">(its own)</span>' if near.place == own else ""
        kind = ' class="rf-own"' if near.place == own else ""
        match = f'<td class="number">{number(near.match)}</td>' if near.match is not None else ""
        rows.append(
            f"<tr><td{kind}>{html.escape(collection.reports[near.place])}{mark}</td>"
            f'<td class="number">{counts[near.place]}</td>'
            f'<td class="number">{number(near.cosine)}</td>{match}</tr>'
        )
    head = '<th scope="col">Report</th><th scope="col" class="number">B-scans</th>'
    head += '<th scope="col" class="number">Cosine</th>'
    head += '<th scope="col" class="number">Match</th>' if has_match else ""
    return f'<table class="rf-table"><thead><tr>{head}</tr></thead>{"".join(rows)}</table>'


def picture(image: Array) -> NDArray[np.uint8]:
    """Turn gray values in [0, 1] into 8 bits."""
    pixels: NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
    return pixels
