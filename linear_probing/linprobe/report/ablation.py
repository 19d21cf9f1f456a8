"""One table of many variants: what each loss gives, beside the base model and the full one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from linprobe.report.comparison import load_pairs
from linprobe.report.config import AblationConfig
from linprobe.report.summary import Row, summarise
from linprobe.report.tables import p_text, signed, spread_text
from retfiner.common.files import write_text
from retfiner.common.results import METRIC_INFO


@dataclass(frozen=True)
class Variant:
    """A line of the table.

    Attributes:
        name: The model's name.
        means: Its mean over seeds by data set.
        mean: Mean ± standard deviation over data sets, as text.
        over_base: Its mean minus the base model's; None for the base model.
        over_full: Its mean minus the full model's; None for the full model.
        p: Exact Wilcoxon test against the full model over data sets and seeds, Holm-corrected.
    """

    name: str
    means: dict[str, float]
    mean: str
    over_base: float | None
    over_full: float | None
    p: float | None


def ablation(config: AblationConfig) -> list[Variant]:
    """Read all runs and line them up: base model, full model, variants.

    Args:
        config: The settings.

    Raises:
        InputError: If a model lacks runs that the full one has, or settings differ.
    """
    others = [config.base, *config.variants]
    pairs = load_pairs(config.results, [config.full] * len(others), others)
    rows, _ = summarise(pairs, config.metric)
    by_model = {pair.refined: [row for row in rows if row.pair == pair.name] for pair in pairs}
    base = _mean_of(by_model[config.base]).refined.mean()
    full = _mean_of(by_model[config.base])
    lines = [
        _line(config.base, by_model[config.base], None),
        Variant(
            _name(config.full),
            {r.data_set: float(r.base.mean()) for r in by_model[config.base] if r.data_set},
            spread_text(float(full.base.mean()), full.base_std),
            float(full.base.mean() - base),
            None,
            None,
        ),
    ]
    return lines + [_line(name, by_model[name], base) for name in config.variants]


def _line(model: str, rows: Sequence[Row], base: float | None) -> Variant:
    mean = _mean_of(rows)
    value = float(mean.refined.mean())
    return Variant(
        _name(model),
        {row.data_set: float(row.refined.mean()) for row in rows if row.data_set},
        spread_text(value, mean.refined_std),
        None if base is None else value - base,
        mean.change,
        mean.p_holm,
    )


def _mean_of(rows: Sequence[Row]) -> Row:
    return next(row for row in rows if row.data_set is None)


def _name(model: str) -> str:
    return model.rsplit("/", 1)[-1].replace("_", " ")


def cells(lines: Sequence[Variant]) -> tuple[list[str], list[list[str]]]:
    """Give the header and the text of every cell."""
    data_sets = sorted(lines[0].means)
    header = ["Variant", *data_sets, "Mean", "Over base", "Over full", "p (Holm)"]
    table = [
        [
            line.name,
            *(f"{line.means[name]:.2f}" for name in data_sets),
            line.mean,
            "" if line.over_base is None else signed(line.over_base),
            "" if line.over_full is None else signed(line.over_full),
            "" if line.p is None else p_text(line.p),
        ]
        for line in lines
    ]
    return header, table


def render(lines: Sequence[Variant]) -> Table:
    """Lay the table out for a terminal."""
    header, body = cells(lines)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number == 0 else "right")
    for row in body:
        table.add_row(*row)
    return table


def write(lines: Sequence[Variant], metric: str, folder: Path) -> None:
    """Write ``ablation.md`` and ``ablation.csv``."""
    header, body = cells(lines)
    info = METRIC_INFO[metric]
    markdown = [
        f"{info.label} on the test split: mean over seeds, and over data sets mean ± standard "
        "deviation over seeds.",
        "",
        "| " + " | ".join(header) + " |",
        "| --- |" + " ---: |" * (len(header) - 1),
        *("| " + " | ".join(row) + " |" for row in body),
        "",
        "p (Holm): exact two-sided Wilcoxon signed-rank test against the full model, paired by "
        "data set and seed, corrected for all lines.",
    ]
    write_text(folder / "ablation.md", "\n".join(markdown) + "\n")
    records = [
        {"variant": line.name, **line.means, "over_base": line.over_base,
         "over_full": line.over_full, "p_holm": line.p}
        for line in lines
    ]  # fmt: skip
    write_text(folder / "ablation.csv", pd.DataFrame(records).to_csv(index=False))
