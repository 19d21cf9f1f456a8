"""Compare base and refined models: table, significance, figures, and one page.

Example:
    python report.py --base baseline/RETFound --refined refined/RETFound
"""

from __future__ import annotations

from collections.abc import Sequence

from linprobe.report.config import ReportConfig
from retfiner.common import cli
from retfiner.common.errors import run_entry_point


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
