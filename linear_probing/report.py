"""Compare models: table, intervals, tests, figures, and one page.

python report.py --base baseline/RETFound --refined refined/RETFound
python report.py --base base --refined refined other --predictions theirs.csv
"""

from __future__ import annotations

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point


def main() -> None:
    """Build a report and print its table."""
    from linprobe.report.config import ReportConfig
    from retfiner.common.cli import parse
    from retfiner.common.errors import InputError
    from retfiner.common.progress import LOADING, progress

    config = parse(ReportConfig, "Compare models by the predictions of their probes.")
    if not config.results.is_dir() and not config.predictions:
        raise InputError(
            f"There are no results in {config.results}",
            remedy="run probe.py first, or say with --results or --predictions where they are",
        )
    with progress(LOADING):
        from linprobe.report.build import build_report, say

    say(build_report(config), config.folder)


if __name__ == "__main__":
    run_entry_point(main)
