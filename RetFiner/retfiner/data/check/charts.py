"""Histograms as SVG, to stand within a page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 270
LEFT, RIGHT, TOP, BOTTOM = 78, 16, 34, 48
MOST_BARS = 40

BLUE, VERMILION = "#0072B2", "#D55E00"
"""Of the palette of Okabe and Ito, which colour-blind readers tell apart."""

PATTERN = (
    '<defs><pattern id="beyond" width="6" height="6" patternUnits="userSpaceOnUse">'
    f'<rect width="6" height="6" fill="{VERMILION}"/>'
    '<path d="M0 6 6 0" stroke="#fff" stroke-width="1.2"/></pattern></defs>'
)
"""How bars beyond a limit are filled."""


@dataclass(frozen=True)
class Bars:
    """A histogram's bars.

    Attributes:
        edges: N + 1 edges.
        counts: N counts.
        whole: Whether only whole numbers are counted.
    """

    edges: list[float]
    counts: list[int]
    whole: bool = False


def bars_of_integers(histogram: Mapping[int, int], limit: int | None = None) -> Bars:
    """Bin whole numbers, so that no bar is on both sides of the limit.

    Args:
        histogram: How often each number occurs.
        limit: The last number on the limit's near side.
    """
    low, high = min(histogram), max(histogram)
    width = max(1, math.ceil((high - low + 1) / MOST_BARS))
    if limit is not None:
        low = limit + 1 - math.ceil((limit + 1 - low) / width) * width
    n = math.ceil((high + 1 - low) / width)
    counts = [0] * n
    for number, count in histogram.items():
        counts[(number - low) // width] += count
    # A number's bar is centred on it: half a unit to each side.
    return Bars([low + width * i - 0.5 for i in range(n + 1)], counts, True)


def bars_of_shares(counts: Sequence[int]) -> Bars:
    """Make bars of counts in equal parts of [0, 1].

    Args:
        counts: The counts.
    """
    return Bars([i / len(counts) for i in range(len(counts) + 1)], list(counts))


def histogram_svg(
    bars: Bars, x_label: str, y_label: str, limit: float | None = None, limit_label: str = ""
) -> str:
    """Draw a histogram.

    Bars beyond the limit differ in colour and pattern, and a dashed line stands between.

    Args:
        bars: What to draw.
        x_label: What is counted, with its unit.
        y_label: What the counts are of.
        limit: A line, in units of the x axis.
        limit_label: What stands beside it.
    """
    scale = _Scale(bars, limit)
    parts = [_axes(scale, x_label, y_label)]
    for low, high, count in zip(bars.edges[:-1], bars.edges[1:], bars.counts, strict=True):
        fill = "url(#beyond)" if limit is not None and low >= limit else BLUE
        left, width = scale.x(low) + 0.5, max(1.0, scale.x(high) - scale.x(low) - 1)
        if count:
            parts.append(
                f'<rect x="{left:.1f}" y="{scale.y(count):.1f}" width="{width:.1f}"'
                f' height="{scale.y(0) - scale.y(count):.1f}" fill="{fill}"/>'
            )
    if limit is not None:
        at = scale.x(limit)
        anchor, shift = ("end", -6) if at > WIDTH / 2 else ("start", 6)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 16}" y2="{scale.y(0):.1f}"'
            f' stroke="#1a1a1a" stroke-dasharray="5 4"/><text x="{at + shift:.1f}" y="{TOP - 8}"'
            f' text-anchor="{anchor}">{html.escape(limit_label)}</text>'
        )
    spoken = html.escape(f"Histogram: {y_label} by {x_label}. {limit_label}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}" font-size="13"'
        f' fill="#1a1a1a">{PATTERN}{"".join(parts)}</svg>'
    )


class _Scale:
    """From counts and values to positions in the drawing."""

    def __init__(self, bars: Bars, limit: float | None) -> None:
        self.first, self.last = bars.edges[0], bars.edges[-1]
        if limit is not None:
            self.first, self.last = min(self.first, limit), max(self.last, limit)
        self.ticks_x = _ticks(self.first, self.last, bars.whole)
        self.ticks_y = _ticks(0, max(bars.counts), True)
        if self.ticks_y[-1] < max(bars.counts):  # the highest bar stays below the topmost line
            self.ticks_y.append(self.ticks_y[-1] + self.ticks_y[1])

    def x(self, value: float) -> float:
        share = (value - self.first) / (self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, count: float) -> float:
        return HEIGHT - BOTTOM - count / self.ticks_y[-1] * (HEIGHT - TOP - BOTTOM)


def _axes(scale: _Scale, x_label: str, y_label: str) -> str:
    parts = []
    for tick in scale.ticks_y:
        at = scale.y(tick)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tick:,.0f}</text>'
        )
    base = scale.y(0)
    for tick in scale.ticks_x:
        parts.append(
            f'<line x1="{scale.x(tick):.1f}" x2="{scale.x(tick):.1f}" y1="{base:.1f}"'
            f' y2="{base + 5:.1f}" stroke="#1a1a1a"/><text x="{scale.x(tick):.1f}"'
            f' y="{base + 19:.1f}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base:.1f}" y2="{base:.1f}"'
        f' stroke="#1a1a1a"/><text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}"'
        f' text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text transform="translate(14 {(TOP + base) / 2:.0f}) rotate(-90)"'
        f' text-anchor="middle">{html.escape(y_label)}</text>'
    )
    return "".join(parts)


def _ticks(low: float, high: float, whole: bool) -> list[float]:
    """Return round numbers within [low, high], about eight of them."""
    raw = (high - low) / 8
    step = 10 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= raw)
    if whole:
        step = max(1, step)
    first = math.ceil(low / step)
    return [round(step * i, 10) for i in range(first, math.floor(high / step) + 1)]
