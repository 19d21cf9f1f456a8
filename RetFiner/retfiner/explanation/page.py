"""The explanation as a page: pointing at a word shows where it looks.

The page stands alone: images, styles and the few lines of script lie within it. Every word is a
button, so that the keyboard and screen readers reach it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from retfiner.evaluation.pages import as_8bit, data_uri, get_template
from retfiner.explanation.explain import Explanation
from retfiner.explanation.figure import Array, coloured, relative, strengths, summarise

TEMPLATE = Path(__file__).parent / "templates" / "word_maps.html"


class Span(NamedTuple):
    """A piece of a report: a word with a map by its number, one beyond the cut, or neither."""

    text: str
    word: int | None = None
    unread: bool = False


def build_page(explanation: Explanation) -> str:
    """Build the page: HTML that refers to nothing outside itself."""
    return get_template(TEMPLATE).render(
        strongest=int(strengths(explanation.weighted).argmax()),
        summary=summarise(explanation),
        scan=data_uri(as_8bit(explanation.image)),
        spans=_spans(explanation),
        maps={
            "weighted": _entries(explanation.weighted),
            "attention": _entries(explanation.attention),
            "image": {"map": data_uri(coloured(relative(explanation.rollout)))},
        },
    )


def _entries(maps: Array) -> list[dict[str, object]]:
    return [
        {"map": data_uri(coloured(values)), "strength": round(float(strength), 3)}
        for values, strength in zip(relative(maps), strengths(maps), strict=True)
    ]


def _spans(explanation: Explanation) -> list[Span]:
    """Cut a report into its words and what stands between them."""
    numbers = {word: number for number, word in enumerate(explanation.words)}
    spans, end = [], 0
    for word in sorted([*numbers, *explanation.unread], key=lambda word: word.start):
        spans.append(Span(explanation.report[end : word.start]))
        spans.append(Span(word.text, numbers.get(word), unread=word not in numbers))
        end = word.end
    return [*spans, Span(explanation.report[end:])]
