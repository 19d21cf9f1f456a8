"""One page with everything: numbers, problems, histograms, and pairs to look at.

The page stands alone. Styles, drawings and pictures lie within it, and it asks nothing of any
network. Nothing on it depends on the day or the machine: the same data give the same page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from retfiner.data.check.charts import draw_histogram, integer_edges
from retfiner.data.check.output import FILES, PROBLEMS
from retfiner.data.check.summary import NO_GUARANTEE, Summary, identifiers, percent
from retfiner.data.check.thumbnails import Thumbnail

TEMPLATES = Environment(
    loader=PackageLoader("retfiner.data.check"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"thousands": "{:,}".format, "percent": percent, "identifiers": identifiers}


def build_page(summary: Summary, thumbnails: Sequence[Thumbnail]) -> str:
    """Build the page: HTML that refers to nothing outside itself.

    Args:
        summary: What the checks found.
        thumbnails: Pairs to show.
    """
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
