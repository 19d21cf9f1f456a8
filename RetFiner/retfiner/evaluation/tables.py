"""What the terminal shows: every number with its interval and with chance beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from retfiner.common.results import METRIC_INFO

NAMES = {
    "recall@1": "recall@1",
    "recall@5": "recall@5",
    "recall@10": "recall@10",
    "map": "mAP",
    "median_rank": "median rank",
}
TITLES = {"image_to_text": "Image to report", "text_to_image": "Report to image"}


def console() -> Console:
    """Return a console; a log file has no width, so that it gets a fixed one."""
    own = Console()
    return own if own.is_terminal else Console(width=110)


def number(metric: str, value: float | None) -> str:
    """Write a share in percent, a rank and a loss as they are."""
    if value is None:
        return "–"
    if metric == "median_rank":
        return f"{value:.1f}"
    return f"{value:.3f}" if metric == "loss" else f"{100 * value:.1f}"


def with_interval(metric: str, entry: Mapping[str, Any]) -> str:
    """Write a number and, where there is one, its interval."""
    text = number(metric, entry["value"])
    interval = entry.get("interval")
    if interval is None:
        return text
    return f"{text} [{number(metric, interval[0])}, {number(metric, interval[1])}]"


def _table(title: str, *columns: str) -> Table:
    table = Table("", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def retrieval_table(numbers: Mapping[str, Mapping[str, Any]], top: int) -> Table:
    """Lay out a retrieval: cosine alone, re-ranked, chance."""
    reranked = [f"first {top} re-ranked (ITM)"] if "itm" in numbers else []
    title = "Retrieval (%, 95 % intervals by patient)"
    table = _table(title, "contrast (ITC)", *reranked, "chance")
    for direction, heading in TITLES.items():
        table.add_row(f"[bold]{heading}")
        for metric, name in NAMES.items():
            entries = [numbers[kind][direction][metric] for kind in numbers]
            table.add_row(
                f"  {name}",
                *(with_interval(metric, entry) for entry in entries),
                number(metric, entries[0]["chance"]),
            )
    return table


def zero_shot_table(metrics: Mapping[str, Any]) -> Table:
    """Lay out a classification: each metric with its interval and chance, then each recall."""
    table = _table("Zero-shot classification (%)", "value", "chance")
    for name, info in METRIC_INFO.items():
        entry = {"value": metrics["values"][name], "interval": metrics["intervals"].get(name)}
        table.add_row(
            info.label, with_interval(name, entry), number(name, metrics["chance"].get(name))
        )
    table.add_section()
    for name, recall in metrics["recall"].items():
        support = metrics["support"][name]
        table.add_row(f"recall of {name} ({support} images)", number("recall", recall), "")
    return table


def report_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out how close reports are to the true ones.

    Args:
        scores: Of the written reports, of the same texts given to other images, and of one report
            for all images.
    """
    names = {
        "micro_f1": "F1 of the findings, micro",
        "macro_f1": "F1 of the findings, macro",
        "same_findings": "exactly the same findings",
        **{f"bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)},
        "rouge_l": "ROUGE-L",
        "meteor_exact_stem": "METEOR (words and stems)",
    }
    table = _table("Written reports (%)", "written", "for other images", "the commonest for all")
    for key, name in names.items():
        table.add_row(name, *(number(key, each[key]) for each in scores))
    return table


def findings_table(findings: Mapping[str, Mapping[str, Any]]) -> Table:
    """Lay out each finding that some true report states."""
    table = _table("Findings (%)", "precision", "recall", "F1", "true reports")
    for name, entry in findings.items():
        if entry["support"]:
            cells = [number(key, entry[key]) for key in ("precision", "recall", "f1")]
            table.add_row(name.replace("_", " "), *cells, str(entry["support"]))
    return table
