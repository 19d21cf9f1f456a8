"""Show where in a B-scan each word of a report looks.

    python explain.py --model models/<name> --image scan.png --report "Subretinal fluid." --html
    python explain.py --model models/<name> --data pairs.csv --row 2

``--help`` lists every setting.
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and explain."""
    from retfiner.common.cli import parse
    from retfiner.explanation.config import ExplainConfig

    config = parse(ExplainConfig, "Show where in a B-scan each word of a report looks.")
    from retfiner.explanation.run import run

    run(config)


if __name__ == "__main__":
    run_entry_point(main)
