"""Check a table of image-report pairs before training on it.

For example:

    python prepare_pairs.py --csv pairs.csv --output checked
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and check."""
    from retfiner.common.cli import parse
    from retfiner.data.check.config import PreparePairsConfig

    config = parse(PreparePairsConfig, "Check a table of image-report pairs, clean and split it.")
    from retfiner.data.check.prepare_pairs import prepare_pairs

    summary = prepare_pairs(config)
    if config.strict and (summary.problems or summary.warnings):
        raise SystemExit(1)


if __name__ == "__main__":
    run_entry_point(main)
