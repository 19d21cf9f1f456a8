"""Compare base and refined models: table, significance, figures, and one page.

Example:
    python report.py --base baseline/RETFound --refined refined/RETFound
"""

from __future__ import annotations

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point


def main() -> None:
    """Build a report and print its table."""
    from linprobe.report.config import ReportConfig
    from retfiner.common.cli import parse
    from retfiner.common.results import model_folder

    config = parse(ReportConfig, "Compare base and refined models.")
    for model in (*config.base, *config.refined, *config.zero_shot):
        model_folder(config.results, model)
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
        zero_shot=config.zero_shot,
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
