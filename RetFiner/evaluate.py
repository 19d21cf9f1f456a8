"""Use a refined model besides its features: retrieval, zero-shot classification, reports.

    python evaluate.py --task retrieval --model models/NAME --data pairs.csv

``--help`` lists every setting.
"""

from __future__ import annotations

from retfiner.common.cli import parse
from retfiner.common.errors import run_entry_point
from retfiner.evaluation.config import EvaluateConfig


def main() -> None:
    """Parse the command line and evaluate."""
    config = parse(EvaluateConfig, "Use a refined model besides its features.")
    from retfiner.evaluation.run import evaluate  # after parsing, so that --help answers at once

    evaluate(config)


if __name__ == "__main__":
    run_entry_point(main)
