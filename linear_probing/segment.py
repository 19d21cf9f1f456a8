"""Segment with frozen backbones: a small head on patch tokens, Dice and HD95, base beside refined.

    python segment.py --weights base=_weights/base.pth refined=_weights/refined.pth --data_root _seg

Data sets have MIRAGE's layout: <name>/{train,val,test}/{bscan,semseg}/<image>.png and INFO.json.
"""

from __future__ import annotations

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line, run, and print the table."""
    from linprobe.datasets import list_data_sets
    from linprobe.segmentation.config import SegmentConfig
    from linprobe.segmentation.masks import TO_TRAIN
    from retfiner.common.cli import parse
    from retfiner.common.progress import LOADING, progress
    from retfiner.vision.sniff import require_checkpoint_file

    config = parse(SegmentConfig, "Train a segmentation head on frozen patch tokens.")
    for path in config.models.values():
        require_checkpoint_file(path)
    list_data_sets(config.data_root, config.data_set, having=TO_TRAIN)
    with progress(LOADING):  # torch, which a wrong path does not wait for
        from linprobe.segmentation.run import segment

    print(segment(config))
    print(f"\nTable, scores of each image and figures: {config.output}")


if __name__ == "__main__":
    run_entry_point(main)
