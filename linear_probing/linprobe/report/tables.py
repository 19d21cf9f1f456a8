"""The tables of a report: what they say, and one style of each medium for all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from rich.table import Table as RichTable
from rich.text import Text

from linprobe.report.summary import MEAN, Change, Interval, Summary
from linprobe.statistics import stars
from retfiner.common.metrics import ALL_METRICS, PER_CLASS, VALUE_METRICS

if TYPE_CHECKING:
    import pandas as pd

WORDS = {"classes": "classes", "ordinal": "grades", "multilabel": "several labels an image",
         "regression": "values"}  # fmt: skip
"""What kinds of tasks are about."""
LONGEST_HEAD = 14
"""Letters of a model's name over a column of numbers."""
FEW_UNITS = 5
"""With fewer patients of a class nothing was simulated (docs/statistics.md)."""
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "*": r"$^{*}$",
}


class Bold(str):
    """The text of a cell that stands out."""


class Line(NamedTuple):
    """One line: ``heading`` (a single cell over all columns), ``body`` or ``mean``."""

    cells: tuple[str, ...]
    kind: str = "body"


@dataclass(frozen=True)
class Table:
    """A table ready to be rendered; the first column is text, the others are numbers."""

    title: str
    caption: str
    columns: tuple[str, ...]
    lines: list[Line]
    notes: list[str] = field(default_factory=list)


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as a command; other letters are left to UTF-8."""
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Escape what Markdown would read as markup within a cell."""
    return "".join(f"\\{c}" if c in r"\|*_`[]<>" else c for c in text).replace("\n", " ")


@cache
def templates() -> Environment:
    """Give the templates beside this file; what goes into an HTML page is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"latex": escape_latex, "markdown": escape_markdown}
    environment.tests["bold"] = lambda text: isinstance(text, Bold)
    return environment


def render(template: str, **values: Any) -> str:
    """Fill in a template; ``tables.tex`` has environments to input, which need booktabs."""
    return templates().get_template(template).render(**values)


def notes_of(template: str, **values: Any) -> list[str]:
    """Fill in a template of notes, which an empty line divides."""
    text = render(template, **values)
    return [" ".join(note.split()) for note in text.split("\n\n") if note.strip()]


def render_terminal(table: Table) -> RichTable:
    """Lay a table out for a terminal."""
    laid = RichTable(title=Text(table.caption), title_justify="left", title_style="",
                     header_style="bold", box=None, pad_edge=False)  # fmt: skip
    names = [line.cells[0] for line in table.lines if line.kind != "heading"]
    widest = max([24, *map(len, names)])  # headings, which span on a page, wrap here
    laid.add_column(table.columns[0], max_width=widest, overflow="fold")
    for title in table.columns[1:]:
        laid.add_column(title, justify="right", no_wrap=True)
    for line in table.lines:
        style = "bold" if line.kind == "heading" else ""
        laid.add_row(*(Text(c, "bold" if isinstance(c, Bold) else style) for c in line.cells))
    return laid


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """Write a number, with a sign if it is a change, and a true minus if it is negative."""
    text = f"{value:{'+' * sign}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def with_spread(mean: float, deviation: float, digits: int = 2) -> str:
    """Write ``mean ± deviation``; the mean alone where there is no deviation."""
    text = number(mean, digits)
    return text if math.isnan(deviation) else f"{text} ± {deviation:.{digits}f}"


def interval_text(interval: Interval, sign: bool = True, digits: int = 2) -> str:
    """Write an interval as ``low to high``; a dash where there is none."""
    if interval is None or math.isnan(interval[0]):
        return "–"
    return " to ".join(number(end, digits, sign) for end in interval)


def with_interval(
    value: float, interval: Interval = None, sign: bool = False, digits: int = 1
) -> str:
    """Write ``value (low to high)``, or the value alone; a dash where there is none."""
    if math.isnan(value):
        return "–"
    text = number(value, digits, sign)
    return f"{text} ({interval_text(interval, sign, digits)})" if interval else text


def p_text(p: float) -> str:
    """Write a p-value: four decimals, an exponent below 0.0001, a dash where there is none."""
    if math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}".replace("-", "−")


def _bold(text: str, wanted: bool) -> str:
    return Bold(text) if wanted else text


def main_table(summary: Summary, marks: dict[str, str]) -> Table:
    """Lay out each comparison by data set; of one model alone, its scores.

    ``marks`` stand behind the name of a data set, and point to a note.
    """
    lines: list[Line] = []
    for pair in summary.pairs:
        lines.append(Line((f"{pair[0]} → {pair[1]}",), "heading"))
        lines += [_comparison(summary, change, marks) for change in summary.of_pair(pair)]
    columns: tuple[str, ...] = ("Data set", "Chance", *_heads(summary), "Change", "95 % interval",
                                "p", "p (Holm)")  # fmt: skip
    if not summary.pairs:
        columns = ("Data set", "Chance", "Score", "95 % interval")
        lines = [_score_line(summary, name, marks) for name in summary.rows]
    info, by = ALL_METRICS[summary.metric], ""
    if summary.item != "image":
        by = f" by {summary.item} (mean of its images' probabilities, or as its probe pooled them)"
    caption = (
        f"{info.axis} on the test split{by}, mean ± standard deviation over seeds "
        f"({'higher' if info.higher_is_better else 'lower'} is better)."
    )
    return Table("Results", caption, columns, lines, _told("reading.txt", summary))


def _heads(summary: Summary) -> list[str]:
    """Name the two models over their columns; where blocks differ in them, their headings do."""
    sides = (set(names) for names in zip(*summary.pairs, strict=True))
    return [
        found.pop() if len(found) == 1 and max(map(len, found)) <= LONGEST_HEAD else word
        for found, word in zip(sides, ("Base", "Model"), strict=False)
    ]


def _name_and_chance(summary: Summary, name: str, marks: dict[str, str]) -> tuple[str, str]:
    chance = summary.chance_on(name)
    return f"{name}{marks.get(name, '')}", "–" if chance is None else number(
        chance, ALL_METRICS[summary.metric].digits
    )


def _score_line(summary: Summary, name: str, marks: dict[str, str]) -> Line:
    score = summary.scores[summary.models[0], name]
    digits = ALL_METRICS[summary.metric].digits
    text = (with_spread(score.mean, score.deviation, digits),
            interval_text(score.interval, False, digits))  # fmt: skip
    return Line(
        (*_name_and_chance(summary, name, marks), *text), "mean" if name == MEAN else "body"
    )


def _comparison(summary: Summary, change: Change, marks: dict[str, str]) -> Line:
    scores = [summary.scores[model, change.data_set] for model in (change.base, change.model)]
    info = ALL_METRICS[summary.metric]
    means = [round(score.mean, info.digits) for score in scores]  # what looks alike is alike
    winner = max(means) if info.higher_is_better else min(means)
    cells = (
        *_name_and_chance(summary, change.data_set, marks),
        *(
            _bold(with_spread(s.mean, s.deviation, info.digits), mean == winner)
            for s, mean in zip(scores, means, strict=True)
        ),
        number(change.change, info.digits, True),
        interval_text(change.interval, True, info.digits),
        p_text(change.p),
        f"{p_text(change.p_holm)}{stars(change.p_holm)}",
    )
    return Line(cells, "mean" if change.data_set == MEAN else "body")


def leaderboard(summary: Summary) -> Table:
    """Rank all models by their mean over data sets."""
    order, names = sorted(summary.models, key=summary.ranks.__getitem__), summary.rows
    info = ALL_METRICS[summary.metric]
    best = max if info.higher_is_better else min
    means = {(m, n): round(summary.scores[m, n].mean, info.digits) for m in order for n in names}
    winners = {n: best(means[m, n] for m in order) for n in names}
    lines = []
    for model in order:
        scores = (_bold(number(means[model, n], info.digits), means[model, n] == winners[n])
                  for n in names)  # fmt: skip
        interval = interval_text(summary.scores[model, MEAN].interval, False, info.digits)
        lines.append(Line((model, *scores, interval, f"{summary.ranks[model]:.2f}")))
    columns = ("Model", *names, "95 % interval", "Mean rank")
    caption = f"All models: {ALL_METRICS[summary.metric].label}, best mean rank first."
    return Table("Leaderboard", caption, columns, lines, _told("ranks.txt", summary))


def pairwise_table(summary: Summary) -> Table:
    """Give the change of the mean from each model (line) to each other one (column)."""
    lines, digits = [], ALL_METRICS[summary.metric].digits
    for line in summary.models:
        cells = [line]
        for column in summary.models:
            change = summary.pairwise.get((line, column)) or summary.pairwise.get((column, line))
            if change is None:
                cells.append("–")
                continue
            sign = 1 if change.base == line else -1
            ends = sorted(sign * end for end in change.interval or ())
            interval = (ends[0], ends[1]) if ends else None
            apart = bool(ends) and not ends[0] <= 0 <= ends[1]
            cells.append(_bold(with_interval(sign * change.change, interval, True, digits), apart))
        lines.append(Line(tuple(cells)))
    caption = (
        "Change of the mean over data sets from the model of the line to that of the column, with "
        f"intervals by {summary.unit} that hold for all {len(summary.pairwise)} pairs together at "
        "95 % (Bonferroni: wider than those of the results); bold where one does not hold 0."
    )
    return Table("Every pair", caption, ("From \\ to", *summary.models), lines)


def metrics_table(summary: Summary) -> Table:
    """Give all metrics, averaged over data sets, of each model."""
    means = summary.metrics[summary.metrics["data_set"] == MEAN]
    lines = []
    for name in dict.fromkeys(means["metric"]):
        rows = means[means["metric"] == name].set_index("model").loc[summary.models]
        info = ALL_METRICS[name]
        told = (with_interval(r.value, (r.low, r.high), False, info.digits)
                for r in rows.itertuples())  # fmt: skip
        lines.append(Line((info.label, *told)))
    caption = (
        f"Every metric, mean over data sets and seeds, with its 95 % interval by {summary.unit}."
    )
    columns = ("Metric", *summary.models)
    return Table("Other metrics", caption, columns, lines, _told("metrics.txt", summary))


def class_tables(summary: Summary) -> list[Table]:
    """Give what exists for each class, a table a data set."""
    labels = {"recall": "Recall", "auroc": "AUROC", "average_precision": "AUPRC",
              "sensitivity": ALL_METRICS["sensitivity"].label}  # fmt: skip
    tables = []
    for one in summary.sets:
        rows = summary.metrics[summary.metrics["data_set"] == one.name]
        if one.kind == "regression":
            tables.append(_table_of_values(one.name, one.classes[0], rows))
            continue
        lines = []
        for label, count in zip(one.classes, one.counts_of_classes(), strict=True):
            lines.append(Line((f"{label} ({count} {summary.item}s)",), "heading"))
            for model in summary.models:
                own = rows[(rows["class"] == label) & (rows["model"] == model)].set_index("metric")
                found = own.loc[list(PER_CLASS)].itertuples()
                told = (with_interval(r.value, (r.low, r.high)) for r in found)
                lines.append(Line((model, *told)))
        caption = f"{one.name}: each class against the rest (%)."
        tables.append(Table(one.name, caption, ("Class", *(labels[k] for k in PER_CLASS)), lines))
    return tables


def _table_of_values(name: str, what: str, rows: pd.DataFrame) -> Table:
    """Give R² and error of the predicted values of a data set."""
    lines = []
    for model, own in rows.groupby("model", sort=False):
        told = (with_interval(r.value, (r.low, r.high), digits=3)
                for r in own.set_index("metric").loc[list(VALUE_METRICS)].itertuples())  # fmt: skip
        lines.append(Line((str(model), *told)))
    columns = ("Model", *(metric.label for metric in VALUE_METRICS.values()))
    return Table(name, f"{name}: {what}, the error in its own unit.", columns, lines)


def _told(template: str, summary: Summary, means: bool = True) -> list[str]:
    """Say what a template has to say of a summary, and of its ``means`` over data sets."""
    fewest = ((one, min(one.units_of_classes)) for one in summary.sets)
    rare = [f"{one.name} ({n} {one.unit}{'s' * (n > 1)})" for one, n in fewest if n < FEW_UNITS]
    numbers = {"few": FEW_UNITS, "rare": rare, "means": means}
    metric = ALL_METRICS[summary.metric]
    return notes_of(template, summary=summary, metric=metric, p_text=p_text, **numbers)


def warnings(summary: Summary, means: bool = True) -> list[str]:
    """Say what numbers cannot bear: too few data sets for ``means``, few patients of a class."""
    return _told("warnings.txt", summary, means)
