"""Refine a retinal vision model on B-scans and their reports.

    python train.py --model_weights path/to/visionmodel.pth --train_csv pairs.csv
    python train.py --model_weights RETFound --train_csv pairs.csv

``--help`` lists every setting.
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and run."""
    from retfiner.common.cli import parse
    from retfiner.config import RefineConfig

    config = parse(RefineConfig, "Refine a retinal vision model on B-scans and their reports.")
    from retfiner.refine import check_paths, find_weights, refine

    config = find_weights(config)
    check_paths(config)
    refine(config)


if __name__ == "__main__":
    run_entry_point(main)
