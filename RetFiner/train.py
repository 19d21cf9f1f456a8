"""Refine a retinal vision model on B-scans and their reports.

    python train.py --model_weights path/to/visionmodel.pth --train_csv pairs.csv

``--help`` lists every setting.
"""

from __future__ import annotations

from retfiner.common.cli import parse
from retfiner.common.errors import run_entry_point
from retfiner.config import RefineConfig


def main() -> None:
    """Parse the command line and run."""
    config = parse(RefineConfig, "Refine a retinal vision model on B-scans and their reports.")
    from retfiner.refine import refine  # after parsing, so that --help answers at once

    refine(config)


if __name__ == "__main__":
    run_entry_point(main)
