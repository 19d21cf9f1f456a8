"""Use a refined model besides its features: retrieval, zero-shot classification, reports.

    python evaluate.py --task retrieval --model models/NAME --data pairs.csv

``--help`` lists every setting.
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and evaluate."""
    from retfiner.common.cli import parse
    from retfiner.evaluation.config import EvaluateConfig

    config = parse(EvaluateConfig, "Use a refined model besides its features.")
    from retfiner.evaluation.run import evaluate

    evaluate(config)


if __name__ == "__main__":
    run_entry_point(main)
