"""Print the commands from names and downloads to the paper's table; reproduce.sh runs them.

python reproduce.py --model RETFound --data_set OCTDL OCTID
"""

from __future__ import annotations

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line, and print the commands or, at their end, the table."""
    from linprobe.reproduce import ReproduceConfig, plan, table
    from retfiner.common.cli import parse
    from retfiner.common.commands import shorter

    config = parse(ReproduceConfig, "From names and downloads to the paper's table of seven tasks.")
    if config.table:
        print(table(config))
        print(f"Table:   {shorter(config.output / 'table.md')}")
        print(f"Report:  {shorter(config.output / 'report' / 'index.html')}")
    else:
        print("\n".join(plan(config)))


if __name__ == "__main__":
    run_entry_point(main)
