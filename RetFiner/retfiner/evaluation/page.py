"""A page with true and written reports side by side, findings marked; it needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from retfiner.data.manifest import Manifest
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.findings import find_mentions, normalise, stated_findings
from retfiner.vision.images import ImageAddress, read_image

THUMBNAIL_WIDTH = 320

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem;
       color: #1c2430; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
.warning { border-left: 4px solid #a33; background: #fdf1f0; padding: .6rem 1rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th { text-align: left; border-bottom: 2px solid #1c2430; padding: .4rem .6rem; }
td { vertical-align: top; border-bottom: 1px solid #d5dae1; padding: .6rem;
     overflow-wrap: anywhere; }
tbody th { border-bottom: 1px solid #d5dae1; vertical-align: top; font-weight: normal; }
col.row { width: 4.5rem; } col.image { width: 21rem; }
img { width: 100%; height: auto; display: block; background: #000; }
mark { border-radius: 3px; padding: 0 .15em; color: inherit; }
.both { background: #cfeeda; } .missed { background: #ffe5b0; border-bottom: 2px solid #b36b00; }
.invented { background: #ffd3d0; border-bottom: 2px dashed #a33; }
.denied { background: none; border-bottom: 2px dotted #8a93a0; }
.legend mark { margin-right: 1rem; }
"""


def build_page(
    config: EvaluateConfig, manifest: Manifest, written: list[str], scores: Mapping[str, Any]
) -> str:
    """Build the page.

    Args:
        config: How many rows, whether with images, and how reports were written.
        manifest: The pairs.
        written: A report for each.
        scores: Of :func:`retfiner.evaluation.reports.score`.

    Returns:
        HTML in which everything that came from outside is escaped.
    """
    shown = min(config.page_rows, len(manifest))
    rows = [_row(config, manifest, written, index) for index in range(shown)]
    image = '<col class="image">' if config.thumbnails else ""
    heading = "<th>Image</th>" if config.thumbnails else ""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Written reports</title><style>{_STYLE}</style></head><body>",
        "<h1>Written reports beside the true ones</h1>",
        '<p class="warning"><strong>Research output, not a diagnosis.</strong> A model wrote the '
        "texts on the right from the image alone. They state things that are not there.</p>",
        f"<p>{_summary(config, scores, shown, len(manifest))}</p>",
        '<p class="legend"><mark class="both">stated in both</mark>'
        '<mark class="missed">in the true report only</mark>'
        '<mark class="invented">in the written report only</mark>'
        '<mark class="denied">denied</mark></p>',
        f'<table><colgroup><col class="row">{image}<col><col></colgroup>',
        f"<thead><tr><th>Row</th>{heading}<th>True report</th><th>Written report</th></tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(config: EvaluateConfig, scores: Mapping[str, Any], shown: int, total: int) -> str:
    how = {"greedy": "greedy", "beam": f"beam search, {config.beams} candidates",
           "nucleus": f"nucleus sampling, top p {config.top_p:g}, seed {config.seed}"}  # fmt: skip
    f1 = "–" if scores["micro_f1"] is None else f"{100 * scores['micro_f1']:.1f} %"
    return html.escape(
        f"{shown} of {total} pairs. Decoding: {how[config.decode]}. On all of them: F1 of the "
        f"findings {f1}, same findings {100 * scores['same_findings']:.1f} %, "
        f"BLEU-4 {100 * scores['bleu_4']:.1f} %, ROUGE-L {100 * scores['rouge_l']:.1f} %."
    )


def _row(config: EvaluateConfig, manifest: Manifest, written: list[str], index: int) -> str:
    true, ours = manifest.reports[index], written[index]
    cells = [f'<th scope="row">{manifest.rows[index]}</th>']
    if config.thumbnails:
        cells.append(f"<td>{_thumbnail(manifest.images[index], manifest.rows[index])}</td>")
    cells.append(f"<td>{mark_findings(true, stated_findings(ours), 'missed')}</td>")
    cells.append(f"<td>{mark_findings(ours, stated_findings(true), 'invented')}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def mark_findings(report: str, others: frozenset[str], alone: str) -> str:
    """Mark the findings in a report.

    Args:
        report: The report.
        others: Findings that the other report states.
        alone: Class of the marks around findings that the other report does not state.

    Returns:
        HTML.
    """
    plain, text = " ".join(report.split()), normalise(report)
    shown = plain if len(plain) == len(text) else text  # as written where places agree
    parts, done = [], 0
    for mention in find_mentions(text):
        kind = "denied"
        if mention.status == "stated":
            kind = "both" if others.issuperset(mention.findings) else alone
        names = ", ".join(name.replace("_", " ") for name in mention.findings)
        parts.append(html.escape(shown[done : mention.start]))
        parts.append(
            f'<mark class="{kind}" title="{names}">'
            f"{html.escape(shown[mention.start : mention.end])}</mark>"
        )
        done = mention.end
    return "".join(parts) + html.escape(shown[done:])


def _thumbnail(address: ImageAddress, row: int) -> str:
    pixels = (255 * read_image(address)).round().astype(np.uint8)
    image = Image.fromarray(pixels)
    height = max(1, round(image.height * THUMBNAIL_WIDTH / image.width))
    buffer = io.BytesIO()
    image.resize((THUMBNAIL_WIDTH, height)).save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="B-scan of row {row}" src="data:image/jpeg;base64,{data}">'
