"""Pieces of the page. What comes from a table or a model is shown as it is, never as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retfiner.browse.collection import Collection, Neighbour
from retfiner.common.errors import InputError
from retfiner.evaluation.pages import get_template

TEMPLATE = Path(__file__).parent / "templates" / "fragments.html"

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def fragment(macro: str, *values: object) -> str:
    """Write a piece of HTML: ``style``, ``text``, ``heading``, ``note`` or ``report_table``."""
    return str(getattr(get_template(TEMPLATE).module, macro)(*values))


def literal(text: str) -> str:
    """Write plain text so that Streamlit's Markdown shows it as it is."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def error_lines(error: InputError) -> str:
    """Write a user's error as Markdown, a line for each of its parts."""
    return "  \n".join(literal(line) for line in str(error).splitlines())


def number(value: float) -> str:
    """Write a score with three decimals and a true minus."""
    return f"{value:.3f}".replace("-", "−")


def scores(neighbour: Neighbour) -> str:
    """Write how near a neighbour is, in a line."""
    match = "" if neighbour.match is None else f" · match {number(neighbour.match)}"
    return f"cosine {number(neighbour.cosine)}{match}"


def report_table(collection: Collection, found: Sequence[Neighbour], own: int | None) -> str:
    """Write the nearest reports as a table of HTML; the B-scan's ``own`` is marked."""
    counts = np.bincount(collection.report_of, minlength=len(collection.reports))
    return fragment(
        "report_table", collection.reports, found, own, counts, number, f"{collection.noun}s"
    )
