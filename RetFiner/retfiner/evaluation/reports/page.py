"""A page with true and written reports side by side, findings marked; it needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retfiner.data.manifest import Manifest
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.pages import as_8bit, data_uri, get_template
from retfiner.evaluation.reports.findings import find_mentions, normalise, stated_findings
from retfiner.vision.images import read_image

TEMPLATE = Path(__file__).parent / "templates" / "written_reports.html"
THUMBNAIL_WIDTH = 320


class Span(NamedTuple):
    """A piece of a report, and the findings it names.

    ``kind`` is ``both``, ``missed``, ``invented`` or ``denied``; empty where no finding is named.
    """

    text: str
    kind: str = ""
    names: str = ""


def build_page(
    config: EvaluateConfig, manifest: Manifest, written: list[str], scores: Mapping[str, Any]
) -> str:
    """Build the page: HTML in which everything that came from outside is escaped."""
    decoding = {
        "greedy": "greedy",
        "beam": f"beam search, {config.beams} candidates",
        "nucleus": f"nucleus sampling, top p {config.top_p:g}, seed {config.seed}",
    }
    is_read = bool(scores["findings"])  # by rules that know English
    rows = []
    for index in range(min(config.page_rows, len(manifest))):
        true, ours = manifest.reports[index], written[index]
        row = {"number": manifest.rows[index], "true": [Span(true)], "written": [Span(ours)]}
        if is_read:
            row["true"] = mark_findings(true, stated_findings(ours), "missed")
            row["written"] = mark_findings(ours, stated_findings(true), "invented")
        if config.thumbnails:
            pixels = as_8bit(read_image(manifest.images[index]))
            row["thumbnail"] = data_uri(pixels, THUMBNAIL_WIDTH)
        rows.append(row)
    return get_template(TEMPLATE).render(
        rows=rows,
        total=len(manifest),
        decoding=decoding[config.decode],
        scores=scores,
        is_read=is_read,
        thumbnails=config.thumbnails,
    )


def mark_findings(report: str, others: frozenset[str], alone: str) -> list[Span]:
    """Cut a report into its findings and what stands between them.

    ``others`` are the findings that the other report states; one that it does not is of the kind
    ``alone``.
    """
    plain, text = " ".join(report.split()), normalise(report)
    shown = plain if len(plain) == len(text) else text  # as written where places agree
    spans, done = [], 0
    for mention in find_mentions(text):
        kind = "denied"
        if mention.status == "stated":
            kind = "both" if others.issuperset(mention.findings) else alone
        names = ", ".join(name.replace("_", " ") for name in mention.findings)
        spans.append(Span(shown[done : mention.start]))
        spans.append(Span(shown[mention.start : mention.end], kind, names))
        done = mention.end
    return [*spans, Span(shown[done:])]
