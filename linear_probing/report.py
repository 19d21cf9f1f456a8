"""Compare base and refined models: table, significance, figures, and one page.

Example:
    python report.py --base baseline/RETFound --refined refined/RETFound
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retfiner.common import cli
from retfiner.common.errors import run_entry_point


@dataclass(frozen=True)
class ReportConfig:
    """Settings of a report."""

    base: list[str] = cli.flag("base models, as <version>/<model> below --results")
    refined: list[str] = cli.flag("refined models, in the order of their base models")
    results: Path = cli.flag("folder of the probing results", Path("__results"))
    output: Path = cli.flag("folder to write the report to", Path("__results/report"))
    metric: str = cli.flag(
        "metric of the main table: balanced_accuracy, auroc, average_precision, f1, mcc, ece, loss",
        "balanced_accuracy",
    )
    fingerprint: list[str] = cli.flag(
        "beginnings of run or protocol fingerprints; chooses where a model has runs with several "
        "settings",
        [],
    )
    map_points: int = cli.flag("most test images on a map of the features; 0 draws no map", 500)
    seed: int = cli.flag("seed of the maps of the features", 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build a report and print its table.

    Args:
        arguments: The words of the command line; by default those of the process.
    """
    config = cli.parse(ReportConfig, "Compare base and refined models.", arguments)
    from rich.console import Console

    from linprobe.report.build import build_report
    from linprobe.report.render import render_terminal

    report = build_report(
        config.results,
        config.base,
        config.refined,
        config.output,
        metric=config.metric,
        fingerprints=config.fingerprint,
        map_points=config.map_points,
        seed=config.seed,
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # a log file has no width; the table needs its own
    console.print(render_terminal(report.table))
    console.print(f"\nPage:    {report.files[0]}", soft_wrap=True, highlight=False)
    console.print(f"Tables:  {config.output}/table.{{md,tex,csv}}, runs.csv", soft_wrap=True)
    console.print(f"Figures: {config.output}/figures (PNG and PDF)", soft_wrap=True)


if __name__ == "__main__":
    run_entry_point(main)
