"""The tables of a report: what they say, and one style of each medium for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from rich.table import Table as RichTable
from rich.text import Text

from linprobe.report.summary import MEAN, Change, Interval, Summary
from linprobe.statistics import data_sets_needed, stars
from retfiner.common.metrics import METRICS, PER_CLASS

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


@dataclass(frozen=True)
class Cell:
    """One cell: its text and its emphasis."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One line: ``heading`` (a single cell over all columns), ``body`` or ``mean``."""

    cells: tuple[Cell, ...]
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
    return environment


def render(tables: Sequence[Table], kind: str) -> str:
    """Render tables as ``md``, or as ``tex`` (environments to input; needs booktabs)."""
    return templates().get_template(f"tables.{kind}").render(tables=tables)


def render_terminal(table: Table) -> RichTable:
    """Lay a table out for a terminal."""
    laid = RichTable(
        title=Text(table.caption),
        title_justify="left",
        title_style="",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for number, title in enumerate(table.columns):
        laid.add_column(title, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for line in table.lines:
        style = "bold" if line.kind == "heading" else ""
        laid.add_row(*(Text(c.text, "bold" if c.bold else style) for c in line.cells))
    return laid


def with_spread(mean: float, deviation: float) -> str:
    """Write ``mean ± deviation``; the mean alone where there is no deviation."""
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def signed(value: float) -> str:
    """Write a change with its sign, a true minus for a negative one."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def interval_text(interval: Interval, sign: bool = True) -> str:
    """Write an interval as ``low to high``; a dash where there is none."""
    write = signed if sign else "{:.2f}".format
    return "–" if interval is None else f"{write(interval[0])} to {write(interval[1])}"


def p_text(p: float) -> str:
    """Write a p-value: four decimals, an exponent below 0.0001, a dash where there is none."""
    if math.isnan(p):
        return "–"
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}".replace("-", "−")


def main_table(summary: Summary, marks: dict[str, str]) -> Table:
    """Lay out each comparison by data set; of one model alone, its scores.

    Args:
        summary: The numbers.
        marks: What stands behind the name of a data set, and points to a note.
    """
    info = METRICS[summary.metric]
    unit = " (%)" if info.scale == 100 else ""
    best = "higher" if info.higher_is_better else "lower"
    lines: list[Line] = []
    for pair in summary.pairs:
        lines.append(Line((Cell(f"{pair[0]} → {pair[1]}"),), "heading"))
        lines += [_comparison(summary, change, marks) for change in summary.of_pair(pair)]
    caption = (
        f"{info.label}{unit} on the test split, mean ± standard deviation over seeds "
        f"({best} is better)."
    )
    columns: tuple[str, ...] = (
        "Data set", "Chance", "Base", "Refined", "Change", "95 % interval", "p", "p (Holm)"
    )  # fmt: skip
    if not summary.pairs:
        columns = ("Data set", "Chance", "Score", "95 % interval")
        [model] = summary.models
        lines = [_score_line(summary, model, name, marks) for name in _rows(summary)]
    return Table("Results", caption, columns, lines, _reading(summary))


def _rows(summary: Summary) -> list[str]:
    return [*(one.name for one in summary.sets), MEAN]


def _name_and_chance(summary: Summary, name: str, marks: dict[str, str]) -> tuple[Cell, Cell]:
    chance = summary.chance_on(name)
    return Cell(f"{name}{marks.get(name, '')}"), Cell("–" if chance is None else f"{chance:.2f}")


def _score_line(summary: Summary, model: str, name: str, marks: dict[str, str]) -> Line:
    score = summary.scores[model, name]
    cells = (
        *_name_and_chance(summary, name, marks),
        Cell(with_spread(score.mean, score.deviation)),
        Cell(interval_text(score.interval, sign=False)),
    )
    return Line(cells, "mean" if name == MEAN else "body")


def _comparison(summary: Summary, change: Change, marks: dict[str, str]) -> Line:
    scores = [summary.scores[model, change.data_set] for model in (change.base, change.model)]
    best = max if METRICS[summary.metric].higher_is_better else min
    winner = best(score.mean for score in scores)
    cells = (
        *_name_and_chance(summary, change.data_set, marks),
        *(Cell(with_spread(s.mean, s.deviation), bold=s.mean == winner) for s in scores),
        Cell(signed(change.change)),
        Cell(interval_text(change.interval)),
        Cell(p_text(change.p)),
        Cell(f"{p_text(change.p_holm)}{stars(change.p_holm)}"),
    )
    return Line(cells, "mean" if change.data_set == MEAN else "body")


def leaderboard(summary: Summary) -> Table:
    """Rank all models by their mean over data sets."""
    order = sorted(summary.models, key=lambda model: summary.ranks[model])
    names = _rows(summary)
    best = max if METRICS[summary.metric].higher_is_better else min
    winners = {n: best(summary.scores[m, n].mean for m in order) for n in names}
    lines = [
        Line((
            Cell(model),
            *(Cell(f"{summary.scores[model, n].mean:.2f}",
                   bold=summary.scores[model, n].mean == winners[n]) for n in names),
            Cell(interval_text(summary.scores[model, MEAN].interval, sign=False)),
            Cell(f"{summary.ranks[model]:.2f}"),
        ))
        for model in order
    ]  # fmt: skip
    notes = []
    if not math.isnan(summary.critical):
        notes = [
            f"Mean ranks of two models differ at p<0.05 where they lie {summary.critical:.2f} or "
            "more apart (critical difference of Nemenyi, all pairs compared)."
        ]
    columns = ("Model", *names, "95 % interval", "Mean rank")
    caption = f"All models: {METRICS[summary.metric].label}, best mean rank first."
    return Table("Leaderboard", caption, columns, lines, notes)


def pairwise_table(summary: Summary) -> Table:
    """Give the change of the mean from each model (line) to each other one (column)."""
    lines = []
    for line in summary.models:
        cells = [Cell(line)]
        for column in summary.models:
            change = summary.pairwise.get((line, column)) or summary.pairwise.get((column, line))
            if change is None:
                cells.append(Cell("–"))
                continue
            sign = 1 if change.base == line else -1
            ends = change.interval and sorted(sign * end for end in change.interval)
            apart = ends is not None and not ends[0] <= 0 <= ends[1]
            text = interval_text((ends[0], ends[1]) if ends else None)
            cells.append(Cell(f"{signed(sign * change.change)} ({text})", bold=apart))
        lines.append(Line(tuple(cells)))
    caption = (
        "Change of the mean over data sets from the model of the line to that of the column, with "
        "its 95 % interval by patient; bold where that does not hold 0. Not corrected for the "
        "number of pairs."
    )
    return Table("Every pair", caption, ("From \\ to", *summary.models), lines)


def metrics_table(summary: Summary) -> Table:
    """Give all metrics, averaged over data sets, of each model."""
    means = summary.metrics[summary.metrics["data_set"] == MEAN]
    lines = []
    for name in dict.fromkeys(means["metric"]):
        rows = means[means["metric"] == name].set_index("model").loc[summary.models]
        cells = (Cell(f"{r.value:.2f} ({_ends(r.low, r.high)})") for r in rows.itertuples())
        lines.append(Line((Cell(METRICS[name].label), *cells)))
    caption = "Every metric, mean over data sets and seeds, with its 95 % interval by patient."
    columns = ("Metric", *summary.models)
    notes = [
        "Sensitivity, AUROC and average precision: one class against the rest, averaged by support."
    ]
    if not any(one.ordered for one in summary.sets):
        notes.append("Quadratic kappa is left out unless --ordered says which classes are a scale.")
    return Table("Other metrics", caption, columns, lines, notes)


def _ends(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.2f} to {high:.2f}".replace("-", "−")


def class_tables(summary: Summary) -> list[Table]:
    """Give what exists for each class, a table a data set."""
    labels = {"recall": "Recall", "auroc": "AUROC", "average_precision": "AUPRC",
              "sensitivity": METRICS["sensitivity"].label}  # fmt: skip
    tables = []
    for one in summary.sets:
        rows = summary.metrics[summary.metrics["data_set"] == one.name]
        lines = []
        for index, label in enumerate(one.classes):
            count = int((one.labels == index).sum())
            lines.append(Line((Cell(f"{label} ({count} images)"),), "heading"))
            for model in summary.models:
                own = rows[(rows["class"] == label) & (rows["model"] == model)].set_index("metric")
                cells = (
                    Cell(f"{own['value'][k]:.1f} ({_ends(own['low'][k], own['high'][k])})")
                    for k in PER_CLASS
                )
                lines.append(Line((Cell(model), *cells)))
        caption = f"{one.name}: each class against the rest (%)."
        tables.append(Table(one.name, caption, ("Class", *(labels[k] for k in PER_CLASS)), lines))
    return tables


def _reading(summary: Summary) -> list[str]:
    """Say what the columns mean and what the tests can and cannot show."""
    units = ", ".join(
        f"{one.name} {one.n_units} {one.unit}s"
        + (f" ({one.without_patient} images without a patient)" if one.without_patient else "")
        for one in summary.sets
    )
    notes = [
        "95 % interval: bootstrap of the test patients, all seeds and both models resampled "
        f"together; the mean's is stratified by data set. Drawn were: {units}.",
    ]
    if summary.pairs:
        notes = [
            "Change: refined minus base, seeds averaged"
            f"{', in points' if METRICS[summary.metric].scale == 100 else ''}. Bold: the better.",
            *notes,
            "p: of one data set, by swapping the models' predictions of whole patients; of the "
            "mean, exact sign-flip test over the data sets' changes, which is the one for the "
            "claim that it helps over data sets. Stars are for p (Holm), corrected for all single "
            "data sets, or all means, of the table: * p<0.05, ** p<0.01, *** p<0.001.",
        ]
    if summary.pooled:
        found = "; ".join(
            f"{base} → {model}, p = {p_text(test.p)} (n = {test.n})"
            for (base, model), test in summary.pooled.items()
        )
        notes.append(
            f"Footnote: the paper's Wilcoxon test over data sets and seeds pooled gives {found}. "
            "It takes seeds of one data set for independent; where nothing differs but chance it "
            "still finds p<0.05 in 29 to 40 % of all tables (docs/statistics.md), so it bears no "
            "star here."
        )
    return notes


def warnings(summary: Summary) -> list[str]:
    """Say what the numbers cannot bear: too few data sets, few patients of a class."""
    notes = []
    if summary.pairs and summary.too_few:
        notes.append(
            f"With {len(summary.sets)} data sets no test over data sets can fall below p = "
            f"{2.0 ** (1 - len(summary.sets)):g}: at least {data_sets_needed()} are needed for "
            "p<0.05. The interval of the mean speaks for these data sets alone."
        )
    rare = []
    for one in summary.sets:
        owners = pd.DataFrame({"unit": one.units, "label": one.labels}).drop_duplicates()
        fewest = int(owners["label"].value_counts().min())
        rare += [f"{one.name} ({fewest} {one.unit}s)"] * (fewest < FEW_UNITS)
    if rare:
        notes.append(
            f"Fewer than {FEW_UNITS} of some class, of which intervals and tests can say little: "
            f"{', '.join(rare)}."
        )
    if summary.undefined:
        label = METRICS[summary.metric].label
        notes.append(f"{label} does not exist on {', '.join(summary.undefined)}: left out.")
    return notes
