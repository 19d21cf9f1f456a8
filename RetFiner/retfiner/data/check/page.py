"""One page with everything: numbers, problems, histograms, and pairs to look at.

The page stands alone. Styles, drawings and pictures lie within it, and it asks nothing of any
network. Nothing on it depends on the day or the machine: the same data give the same page.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.data.check.output import FILES, PROBLEMS
from retfiner.data.check.summary import NO_GUARANTEE, Summary, identifiers, percent
from retfiner.data.pair_table import PairRow
from retfiner.vision import read_image

TEMPLATES = Environment(
    loader=PackageLoader("retfiner.data.check"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"thousands": "{:,}".format, "percent": percent, "identifiers": identifiers}

MOST_SHOWN = 12
SIDE = 288
"""Longer side of a picture in pixels."""
QUALITY = 82
"""Of JPEG; a picture takes about 10 kB."""
MOST_BARS = 40
BLUE, VERMILION = "#0072B2", "#D55E00"
"""Of the palette of Okabe and Ito, which colour-blind readers tell apart."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "retfiner",  # else ids are random, and the same data give another page
    "font.size": 10,
    "hatch.color": "white",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "ytick.major.size": 0,
}


class Thumbnail(NamedTuple):
    """A pair to look at; the JPEG, as base64, is empty where the image cannot be decoded."""

    row: PairRow
    jpeg: str = ""
    width: int = 0
    height: int = 0


def choose(rows: Sequence[PairRow], generator: np.random.Generator) -> list[PairRow]:
    """Choose at most a dozen pairs, of different patients and with different reports if possible.

    Those that are chosen keep their order.
    """
    patients: set[str | None] = set()
    reports: set[str] = set()
    fresh: list[int] = []
    others: list[int] = []
    for index in generator.permutation(len(rows)).tolist():
        row = rows[index]
        known = (row.patient is not None and row.patient in patients) or row.report in reports
        (others if known else fresh).append(index)
        patients.add(row.patient)
        reports.add(row.report)
    return [rows[index] for index in sorted((fresh + others)[:MOST_SHOWN])]


def make_thumbnail(row: PairRow) -> Thumbnail:
    """Read a pair's image and make its picture."""
    try:
        values = read_image(row.image)
    except InputError:  # not found out before where images were not decoded; the page says so
        return Thumbnail(row)
    picture = Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return Thumbnail(row, base64.b64encode(buffer.getvalue()).decode("ascii"), *picture.size)


def build_page(summary: Summary, thumbnails: Sequence[Thumbnail]) -> str:
    """Build the page: HTML that refers to nothing outside itself."""
    return TEMPLATES.get_template("summary.html").render(
        summary=summary,
        thumbnails=thumbnails,
        charts=_charts(summary),
        files=FILES,
        problems_file=PROBLEMS,
        no_guarantee=NO_GUARANTEE,
    )


def _charts(summary: Summary) -> dict[str, str]:
    text, brightness, patients = summary.reports, summary.images.brightness, summary.patients
    unit = "words" if text.unit == "words" else f"{text.unit}, [CLS] and [SEP] counted,"
    drawn = {"lengths": _chart(text.histogram, f"{unit} of a report", "reports", text.limit)}
    if brightness:
        edges = np.linspace(0, 1, len(brightness) + 1)
        label = "mean gray value, 0 black to 1 white"
        drawn["brightness"] = draw_histogram(np.array(brightness), edges, label, "images")
    if patients is not None:
        drawn["patients"] = _chart(patients.histogram, "images of a patient", "patients")
    return drawn


def _chart(histogram: dict[int, int], x_label: str, y_label: str, limit: int | None = None) -> str:
    numbers, counts = np.array(list(histogram)), list(histogram.values())
    bars, edges = np.histogram(numbers, integer_edges(numbers, limit), weights=counts)
    line = None if limit is None else limit + 0.5
    return draw_histogram(bars, edges, x_label, y_label, line)


def integer_edges(numbers: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Return bin edges for whole numbers, so that no bar is on both sides of the limit.

    A number's bar is centred on it, half a unit to each side; the limit is the last number on its
    near side.
    """
    low, high = int(numbers.min()), int(numbers.max())
    width = max(1, math.ceil((high - low + 1) / MOST_BARS))
    if limit is not None:
        low = limit + 1 - math.ceil((limit + 1 - low) / width) * width
    return np.arange(low, high + 1 + width, width) - 0.5


def draw_histogram(
    counts: np.ndarray, edges: np.ndarray, x_label: str, y_label: str, limit: float | None = None
) -> str:
    """Draw N counts between N + 1 edges, as an SVG in a data URI.

    Bars beyond the limit, at a dashed line between what is kept and what is cut, differ in colour
    and pattern.
    """
    with mpl.rc_context(STYLE):
        # Figure alone, not pyplot: no global state, no display, no leak in long runs.
        figure = Figure(figsize=(7.4, 2.8), layout="constrained")
        axes = figure.subplots()
        draw_bars(axes, counts, edges, limit)
        axes.set(xlabel=x_label, ylabel=y_label)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def draw_bars(axes: Axes, counts: np.ndarray, edges: np.ndarray, limit: float | None) -> None:
    """Draw the bars, and the line at the limit; see :func:`draw_histogram`."""
    beyond = np.zeros(len(counts), bool) if limit is None else edges[:-1] >= limit
    for bars, hatch, colour in ((~beyond, None, BLUE), (beyond, "////", VERMILION)):
        left, width = edges[:-1][bars], np.diff(edges)[bars]
        axes.bar(left, counts[bars], width, align="edge", ec="white", fc=colour, hatch=hatch)
    if limit is not None:
        axes.axvline(limit, color="#1a1a1a", linewidth=1, dashes=(5, 4))
        axes.annotate(
            f"cut after {math.floor(limit)}", (limit, 1), xytext=(0, 3), ha="center",
            xycoords=("data", "axes fraction"), textcoords="offset points",
        )  # fmt: skip
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=edges[-1] > 1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color="#ddd")
    axes.set_axisbelow(True)
