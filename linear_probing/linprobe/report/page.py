"""One page with everything: table, figures, how to read them, and where they come from.

The page stands alone. Styles and figures lie within it, and it asks nothing of any network.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from linprobe.report.comparison import Pair
from linprobe.report.provenance import settings_rows
from linprobe.report.render import render_html
from linprobe.report.summary import Row
from linprobe.report.tables import Table, p_text, signed

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem;
  background: #fff; color: #1a1a1a;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
.lead { color: #555; margin: 0 0 1.4rem; }
.results { display: grid; gap: .8rem; padding: 0; margin: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
.results li { border: 1px solid #ddd; border-radius: 6px; padding: .8rem 1rem; }
.results b { display: block; font-size: 1.55rem; font-variant-numeric: tabular-nums; }
.results span { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem;
  font-variant-numeric: tabular-nums; }
caption, .caption { text-align: left; color: #444; font-size: .93rem; margin: 0 0 .5rem; }
th, td { padding: .36rem .7rem; text-align: right; white-space: nowrap; font-weight: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #1a1a1a; font-weight: 600; }
tr.heading th { padding-top: 1rem; font-weight: 700; border-bottom: 1px solid #ccc; }
tr.heading span { font-weight: normal; color: #555; margin-left: .5rem; }
tr.mean > * { border-top: 1px solid #999; background: #f4f4f4; }
td strong { font-weight: 700; }
td u { text-underline-offset: 3px; }
.notes { color: #444; font-size: .88rem; padding-left: 1.1rem; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: #444; font-size: .9rem; margin-top: .5rem; max-width: 46rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
details td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
@media (max-width: 40rem) {
  .wide table { font-size: .85rem; }
  .wide tr > :first-child { position: sticky; left: 0; background: #fff; }
  .wide tr.mean > :first-child { background: #f4f4f4; }
  body { font-size: 15px; padding: 1rem .8rem 3rem; }
  th, td { padding: .3rem .45rem; }
  figure { overflow-x: auto; } figure img { max-width: 40rem; }
}
@media print { figure, table { break-inside: avoid; } details { display: none; } }
"""

PIXELS_PER_INCH = 115
"""Width of a figure on the page: its text is then as large as that of the page's notes."""

READING = (
    (
        "What is compared",
        "A frozen vision backbone turns each B-scan into features, and a small head is trained on "
        "them. Base and refined model are probed in the same way, on the same images and with the "
        "same seeds, so that a change comes from the weights alone.",
    ),
    (
        "What the spread means",
        "± is the standard deviation over seeds: the chance of training. It does not hold the "
        "chance of which patients were tested. The bootstrap intervals of each run do, and lie in "
        "runs.csv.",
    ),
    (
        "What a p-value means",
        "How often a change at least as consistent would arise if base and refined were equally "
        "good and only chance decided each sign. Several tests in one table find something by "
        "chance more often; the column p (Holm) corrects for that. Many seeds on a few data sets "
        "make p small without showing that the change would hold on other data.",
    ),
    (
        "Colours",
        "Base is blue, dashed and hollow, refined vermilion, solid and filled, in every figure. "
        "Classes differ in colour and in mark.",
    ),
)


@dataclass(frozen=True)
class Picture:
    """A figure ready for the page: heading, caption, the PNG, and its width in inches."""

    title: str
    caption: str
    png: bytes
    inches: float


def build_page(
    table: Table, rows: Sequence[Row], pairs: Sequence[Pair], pictures: Sequence[Picture], unit: str
) -> str:
    """Build the page.

    Args:
        table: The main table.
        rows: The numbers behind it.
        pairs: The pairs compared.
        pictures: The figures, in their order.
        unit: What a change is counted in.

    Returns:
        HTML that refers to nothing outside itself.
    """
    results = "".join(_result(row, unit) for row in rows if row.data_set is None)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    reading = "".join(
        f"<p><strong>{html.escape(title)}.</strong> {html.escape(text)}</p>"
        for title, text in READING
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Base and refined models compared</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Base and refined models compared</h1>
<p class="lead">{html.escape(table.caption)}</p>
<ul class="results">{results}</ul>
<h2>Results</h2>
<div class="wide">{render_html(table)}</div>
<ul class="notes">{notes}</ul>
{"".join(map(_figure, pictures))}
<h2>How to read this</h2>
{reading}
<h2>Where the numbers come from</h2>
{"".join(map(_settings, pairs))}
</body>
</html>
"""


def _result(row: Row, unit: str) -> str:
    """Say a pair's result in one card."""
    interval = ""
    if row.interval is not None:
        low, high = map(signed, row.interval)
        interval = f"95 % interval over seeds {low} to {high}; "
    return (
        f"<li>{html.escape(row.pair)}<b>{signed(row.change)}{html.escape(unit)}</b>"
        f"<span>{row.base.mean():.2f} to {row.refined.mean():.2f} on average; {interval}"
        f"p&nbsp;=&nbsp;{p_text(row.test.p)}, corrected {p_text(row.p_holm)}</span></li>"
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    width = round(picture.inches * PIXELS_PER_INCH)
    return (
        f'<h2>{title}</h2>\n<figure><img alt="{title}. {caption}" width="{width}" '
        f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>\n'
    )


def _settings(pair: Pair) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in settings_rows(pair)
    )
    title = html.escape(f"{pair.name}: {pair.base} and {pair.refined}")
    return f"<details><summary>{title}</summary><table><tbody>{rows}</tbody></table></details>"
