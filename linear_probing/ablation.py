"""One table of an ablation: the base model, the full refinement, and variants of it.

Example:
    python ablation.py --base baseline/base --full ablation/full --variants ablation/without_itc
"""

from __future__ import annotations

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point


def main() -> None:
    """Build the table, print it and write it."""
    from linprobe.report.config import AblationConfig
    from retfiner.common.cli import parse
    from retfiner.common.results import model_folder

    config = parse(AblationConfig, "Compare variants of a refinement.")
    for model in (config.base, config.full, *config.variants):
        model_folder(config.results, model)
    from rich.console import Console

    from linprobe.report.ablation import ablation, render, write

    lines = ablation(config)
    write(lines, config.metric, config.output)
    console = Console()
    if not console.is_terminal:
        console = Console(width=130)  # a log file has no width; the table needs its own
    console.print(render(lines))
    console.print(f"\nTable: {config.output}/ablation.{{md,csv}}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    run_entry_point(main)
