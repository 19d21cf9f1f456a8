"""Add cross-attention to a BERT, or make a small one from reports alone.

Ways to use it:

    python build_text_encoder.py
    python build_text_encoder.py --source <hub id or folder> --output <folder>
    python build_text_encoder.py --from_reports pairs.csv --output <folder>
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and build."""
    from retfiner.common.cli import parse
    from retfiner.common.progress import LOADING, progress
    from retfiner.data.pair_table import read_reports
    from retfiner.text.config import TextEncoderConfig

    config = parse(TextEncoderConfig, "Add cross-attention to a BERT; every weight it has is kept.")
    config.require_paths()
    if config.from_reports is not None:
        read_reports(config.from_reports, config.report_column)
    with progress(LOADING):  # torch, which a wrong path does not wait for
        from retfiner.text.build import build_text_encoder

    build_text_encoder(config, read_reports)


if __name__ == "__main__":
    run_entry_point(main)
