"""The explanation as a page: pointing at a word shows where it looks.

The page stands alone: images, styles and the few lines of script lie within it. Every word is a
button, so that the keyboard and screen readers reach it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from retfiner.evaluation.pages import as_8bit, data_uri, get_template
from retfiner.explanation.explain import ExamExplanation, Explanation
from retfiner.explanation.figure import Array, coloured, relative, strengths, summarise

TEMPLATE = Path(__file__).parent / "templates" / "word_maps.html"


class Span(NamedTuple):
    """A piece of a report: a word with a map by its number, one beyond the cut, or neither."""

    text: str
    word: int | None = None
    unread: bool = False


def build_page(explanation: Explanation | ExamExplanation) -> str:
    """Build the page: HTML that refers to nothing outside itself.

    Of an exam, pointing at a word shows the image that it looks at most, and a slider the others.
    """
    if isinstance(explanation, ExamExplanation):
        images, names = explanation.images, explanation.names
    else:
        images, names = [explanation.image], [""]
    kinds = {"weighted": explanation.weighted, "attention": explanation.attention}
    side = explanation.rollout.shape[-1]
    over = {kind: maps.reshape(-1, len(images), side, side) for kind, maps in kinds.items()}
    flow = explanation.rollout.reshape(-1, side, side)
    entries = {kind: _entries(maps) for kind, maps in over.items()}
    return get_template(TEMPLATE).render(
        strongest=int(over["weighted"].sum((1, 2, 3)).argmax()),
        summary=summarise(explanation),
        scans=[data_uri(as_8bit(image)) for image in images],
        names=names,
        spans=_spans(explanation),
        maps={**entries, "image": {"maps": [data_uri(coloured(m)) for m in relative(flow)]}},
    )


def _entries(maps: Array) -> list[dict[str, object]]:
    """Put maps (W, K, g, g) into the page: K a word, its strength, and its share of each image.

    A word's maps have one scale.
    """
    side = maps.shape[-1]
    whole = strengths(maps.reshape(len(maps), -1, side))
    scaled = relative(maps.reshape(len(maps), -1, side)).reshape(maps.shape)
    sums = maps.sum((-2, -1))
    shares = sums / np.maximum(sums.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return [
        {
            "maps": [data_uri(coloured(values)) for values in own],
            "strength": round(float(strength), 3),
            "shares": [round(float(value), 3) for value in share],
        }
        for own, strength, share in zip(scaled, whole, shares, strict=True)
    ]


def _spans(explanation: Explanation | ExamExplanation) -> list[Span]:
    """Cut a report into its words and what stands between them."""
    numbers = {word: number for number, word in enumerate(explanation.words)}
    spans, end = [], 0
    for word in sorted([*numbers, *explanation.unread], key=lambda word: word.start):
        spans.append(Span(explanation.report[end : word.start]))
        spans.append(Span(word.text, numbers.get(word), unread=word not in numbers))
        end = word.end
    return [*spans, Span(explanation.report[end:])]
