"""The main table: what it says, before it takes the form of any medium."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from linprobe.report.comparison import Pair
from linprobe.report.summary import Row
from linprobe.report.wilcoxon import stars
from retfiner.common.results import METRIC_INFO

MEAN = "Mean"
COLUMNS = ("Data set", "Base", "Refined", "Change", "p", "p (Holm)")


@dataclass(frozen=True)
class Cell:
    """One cell: its text and its emphasis."""

    text: str
    bold: bool = False
    underline: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        cells: One for each column; a single one for a heading.
        kind: ``heading`` (names a pair), ``body`` or ``mean``.
    """

    cells: tuple[Cell, ...]
    kind: str


@dataclass(frozen=True)
class Table:
    """A table ready to be rendered.

    Attributes:
        caption: What it shows.
        columns: Headings of the columns.
        lines: Its lines.
        notes: What a reader must know, one sentence or two each.
    """

    caption: str
    columns: tuple[str, ...]
    lines: list[Line]
    notes: list[str]


def build_table(
    rows: Sequence[Row], pairs: Sequence[Pair], metric: str, notes: Sequence[str]
) -> Table:
    """Lay out the rows: the best model bold, the best base model underlined.

    Args:
        rows: Of :func:`linprobe.report.summary.summarise`.
        pairs: The pairs they come from.
        metric: The metric they show.
        notes: What to say below, besides how to read the table.
    """
    info = METRIC_INFO[metric]
    unit = " (%)" if info.scale == 100 else ""
    direction = "higher" if info.higher_is_better else "lower"
    lines: list[Line] = []
    for pair in pairs:
        lines.append(Line((Cell(f"{pair.name}: {pair.base} → {pair.refined}"),), "heading"))
        lines += [_line(row, rows, info.higher_is_better) for row in rows if row.pair == pair.name]
    return Table(
        caption=f"{info.label}{unit} on the test split, mean ± standard deviation over seeds "
        f"({direction} is better).",
        columns=COLUMNS,
        lines=lines,
        notes=[*_reading_notes(rows, unit), *notes],
    )


def _line(row: Row, rows: Sequence[Row], higher_is_better: bool) -> Line:
    rivals = [other for other in rows if other.data_set == row.data_set]
    if row.data_set is None and not _same_data_sets(rows):
        rivals = []  # means over different data sets are no rivals
    best_of = max if higher_is_better else min
    best_base = best_of((float(r.base.mean()) for r in rivals), default=None)
    best_refined = best_of((float(r.refined.mean()) for r in rivals), default=None)
    best = None
    if best_base is not None and best_refined is not None:
        best = best_of(best_base, best_refined)
    base, refined = float(row.base.mean()), float(row.refined.mean())
    cells = (
        Cell(row.data_set or MEAN),
        Cell(spread_text(base, row.base_std), bold=base == best, underline=base == best_base),
        Cell(spread_text(refined, row.refined_std), bold=refined == best),
        Cell(f"{signed(row.change)}{stars(row.test.p)}"),
        Cell(p_text(row.test.p)),
        Cell(f"{p_text(row.p_holm)}{stars(row.p_holm)}"),
    )
    return Line(cells, "mean" if row.data_set is None else "body")


def _same_data_sets(rows: Sequence[Row]) -> bool:
    by_pair: dict[str, set[str]] = {}
    for row in rows:
        by_pair.setdefault(row.pair, set()).update([row.data_set] if row.data_set else [])
    return len({frozenset(names) for names in by_pair.values()}) <= 1


def spread_text(mean: float, deviation: float) -> str:
    """Write ``mean ± deviation``; the mean alone where there is no deviation."""
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def signed(value: float) -> str:
    """Write a change with its sign, a true minus for a negative one."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def p_text(p: float) -> str:
    """Write a p-value: four decimals, an exponent below 0.0001."""
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}".replace("-", "−")


def _reading_notes(rows: Sequence[Row], unit: str) -> list[str]:
    """Say what the columns mean and what the tests can and cannot show."""
    notes = [
        f"Change: refined minus base{' in points' if unit else ''}. "
        "Bold: best model on a data set; underlined: best base model.",
        "p: exact two-sided Wilcoxon signed-rank test of the changes, paired by data set and seed; "
        "zeros are left out, ties share their mean rank. * p<0.05, ** p<0.01, *** p<0.001. "
        "p (Holm): corrected for all means, or for all single data sets, of this table.",
        "Seeds of one data set share their test images and are not independent: a small p-value "
        "speaks for these test sets, not for patients at large.",
    ]
    single = [row.test for row in rows if row.data_set is not None]
    limit = min((test.smallest_p for test in single), default=1.0)
    if limit >= 0.05:
        most = max(test.n for test in single)
        notes.insert(
            2,
            f"With {most} differing seed{'' if most == 1 else 's'} a data set alone cannot reach "
            f"p<0.05: its smallest possible p-value is {limit:g}.",
        )
    zeros = sum(row.test.zeros for row in rows if row.data_set is None)
    if zeros:
        notes.append(f"{zeros} of the paired runs did not change at all.")
    return notes
