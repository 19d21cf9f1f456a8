"""Take the refined vision backbone out of a training checkpoint.

For example:

    python get_vision_backbone_for_linprobing.py --path_to_model models/<name>/best-model.ckpt
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and extract."""
    from retfiner.common.cli import parse
    from retfiner.common.progress import LOADING, progress
    from retfiner.export.config import ExtractConfig
    from retfiner.vision.sniff import require_checkpoint_file

    description = "Take the refined vision backbone out of a training checkpoint."
    config = parse(ExtractConfig, description)
    require_checkpoint_file(config.path_to_model)
    with progress(LOADING):  # torch, which a wrong path does not wait for
        from retfiner.export.extract import extract

    extract(config)


if __name__ == "__main__":
    run_entry_point(main)
