"""One page with everything: numbers, problems, histograms, and pairs to look at.

The page stands alone. Styles, drawings and pictures lie within it, and it asks nothing of any
network. Nothing on it depends on the day or the machine: the same data give the same page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from retfiner.data.check.charts import bars_of_integers, bars_of_shares, histogram_svg
from retfiner.data.check.page_style import STYLE
from retfiner.data.check.samples import Sample
from retfiner.data.check.summary import NO_GUARANTEE, ProblemCount, Summary, identifiers, percent
from retfiner.data.check.writing import FILES, PROBLEMS


def build_page(summary: Summary, samples: Sequence[Sample]) -> str:
    """Build the page.

    Args:
        summary: What the checks found.
        samples: Pairs to show.

    Returns:
        HTML that refers to nothing outside itself.
    """
    sources = html.escape(" and ".join(summary.sources))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Image-report pairs of {sources}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Image-report pairs of {sources}</h1>
<p class="lead">{_lead(summary)}</p>
<ul class="cards">{_cards(summary)}</ul>
<h2>Problems</h2>
{_problems(summary)}
{_identifiers(summary)}
<h2>Length of reports</h2>
{_lengths(summary)}
{_frequent(summary)}
<h2>Images</h2>
{_images(summary)}
{_patients(summary)}
<h2>The split</h2>
{_split(summary)}
<h2>Pairs to look at</h2>
{_samples(summary, samples)}
<h2>Next</h2>
<pre>{html.escape(summary.next_command)}</pre>
</body>
</html>
"""


def _lead(summary: Summary) -> str:
    return (
        f"{summary.rows:,} rows were read; {summary.rows_left_out:,} of them are left out. "
        "This page shows images and reports: treat it as you treat the data."
    )


def _cards(summary: Summary) -> str:
    text = summary.reports
    at_least = "" if text.unit == "WordPieces" else "at least; "
    patients = summary.patients
    cards = [
        (
            "Pairs that can be used",
            f"{summary.pairs:,}",
            f"{summary.images.distinct:,} different images",
        ),
        (
            "Patients",
            "not known" if patients is None else f"{patients.patients:,}",
            "each pair stands for itself"
            if patients is None
            else f"{patients.median:g} images at the median, {patients.most:,} at most",
        ),
        (
            "Rows with problems",
            f"{summary.rows_with_problems:,}",
            f"{summary.rows_left_out:,} left out; all are in {PROBLEMS}",
        ),
        (
            "Reports that are cut",
            percent(text.cut),
            f"{at_least}longer than {text.limit} {text.unit}",
        ),
        (
            "Reports that repeat another",
            percent(text.repeated),
            f"{text.distinct:,} different reports",
        ),
    ]
    return "".join(
        f"<li>{title}<b>{number}</b><span>{note}</span></li>" for title, number, note in cards
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """Lay out cells of ready HTML; columns in ``numbers`` stand flush right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        classes = [' class="number"' if i in numbers else "" for i in range(len(row))]
        return "".join(f"<{tag}{c}>{cell}</{tag}>" for c, cell in zip(classes, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{cells("th", heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _problems(summary: Summary) -> str:
    if not summary.problems:
        return "<p>None was found.</p>"
    heads = ("Problem", "Column", "Rows", "What is done", "Row numbers")
    return (
        _table(heads, [_problem(problem) for problem in summary.problems], (2,))
        + f'<p class="note">Row 1 is the header, as in a spreadsheet. {PROBLEMS} lists each row, '
        "with what exactly was found.</p>"
    )


def _problem(problem: ProblemCount) -> list[str]:
    more = ", …" if problem.rows > len(problem.first) else ""
    return [
        html.escape(problem.kind),
        html.escape(problem.column),
        f"{problem.rows:,}",
        '<span class="out nowrap">left out</span>' if problem.left_out else "kept",
        html.escape(", ".join(problem.first)) + more,
    ]


def _identifiers(summary: Summary) -> str:
    if summary.rows_flagged is None:
        return (
            '<p class="note">Names, dates and record numbers were not looked for; '
            "<code>--deidentify</code> does.</p>"
        )
    return (
        f'<p class="warn"><strong>Identifiers:</strong> {identifiers(summary.rows_flagged)}. '
        f"{NO_GUARANTEE} What was found is not shown here, and such rows are not among the pairs "
        "below.</p>"
    )


def _lengths(summary: Summary) -> str:
    text = summary.reports
    drawing = histogram_svg(
        bars_of_integers(text.histogram, text.limit),
        f"{text.unit} of a report" + (", [CLS] and [SEP] counted" if text.unit != "words" else ""),
        "reports",
        text.limit + 0.5,
        f"cut after {text.limit} {text.unit}",
    )
    if text.unit == "words":
        note = (
            "No text encoder was at hand, so that words are counted. A word is one WordPiece or "
            "more: the share that is cut will be higher. <code>--text_encoder</code> counts "
            "exactly."
        )
    elif text.covering > text.limit:
        note = f"<code>--max_text_tokens {text.covering}</code> would cut at most 5&nbsp;%."
    else:
        note = "At most one report in twenty is cut."
    return (
        f"{drawing}<p>The median is {text.median:g}, the longest {text.longest:,} {text.unit}. "
        f"{note}</p>"
    )


def _frequent(summary: Summary) -> str:
    frequent = summary.reports.frequent
    if not frequent:
        return ""
    rows = [[f"{n:,}", html.escape(text)] for text, n in frequent]
    return "<h2>Reports that repeat</h2>" + _table(("Times", "Report"), rows, (0,))


def _images(summary: Summary) -> str:
    images = summary.images
    parts = []
    if images.brightness:
        bars = bars_of_shares(images.brightness)
        parts.append(histogram_svg(bars, "mean gray value, 0 black to 1 white", "images"))
    else:
        parts.append('<p class="note">Pixels were not decoded (<code>--decode header</code>).</p>')
    rows = [[f"{height} × {width}", f"{n:,}"] for height, width, n in images.sizes]
    if images.other_sizes:
        rows.append(["other sizes", f"{images.other_sizes:,}"])
    if images.unknown_sizes:
        rows.append(["not known without decoding", f"{images.unknown_sizes:,}"])
    parts.append(_table(("Height × width in pixels", "Images"), rows, (1,)))
    return "".join(parts)


def _patients(summary: Summary) -> str:
    if summary.patients is None:
        return ""
    bars = bars_of_integers(summary.patients.histogram)
    return "<h2>Images per patient</h2>" + histogram_svg(bars, "images of a patient", "patients")


def _split(summary: Summary) -> str:
    rows = [
        [
            f"{name}.csv" if f"{name}.csv" in FILES else f"{name} (in pairs.csv)",
            f"{count.pairs:,}",
            "not known" if count.patients is None else f"{count.patients:,}",
        ]
        for name, count in summary.split.items()
    ]
    how = (
        "The split is the one that was given."
        if summary.split_is_given
        else "Patients were drawn at random, by the seed."
    )
    return (
        _table(("Side", "Pairs", "Patients"), rows, (1, 2))
        + f"<p>{how} No patient and no image is on two sides, which was checked.</p>"
    )


def _samples(summary: Summary, samples: Sequence[Sample]) -> str:
    if not samples:
        return "<p>There is none that may be shown.</p>"
    several = len(summary.sources) > 1
    figures = "".join(_figure(sample, several) for sample in samples)
    return (
        "<p>Drawn at random. Does each report describe its image?</p>"
        f'<div class="pairs">{figures}</div>'
    )


def _figure(sample: Sample, several: bool) -> str:
    row = sample.row
    label = f"row {row.number}" + (f" of {row.file.name}" if several else "")
    picture = "<p>This image cannot be decoded.</p>"
    if sample.jpeg:
        picture = (
            f'<img alt="B-scan of {html.escape(label)}" width="{sample.width}"'
            f' height="{sample.height}" src="data:image/jpeg;base64,{sample.jpeg}">'
        )
    return (
        f'<figure><div class="image">{picture}</div>'
        f"<figcaption>{html.escape(row.report)}<small>{html.escape(label)}</small></figcaption>"
        "</figure>"
    )
