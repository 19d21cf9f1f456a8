"""Take the refined vision backbone out of a training checkpoint.

For example:

    python get_vision_backbone_for_linprobing.py --path_to_model models/<name>/best-model.ckpt
"""

from __future__ import annotations

from retfiner.common.cli import parse
from retfiner.common.errors import run_entry_point
from retfiner.export.extract import ExtractConfig, extract


def main() -> None:
    """Parse the command line and extract."""
    extract(parse(ExtractConfig, "Take the refined vision backbone out of a training checkpoint."))


if __name__ == "__main__":
    run_entry_point(main)
