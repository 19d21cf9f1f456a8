"""Pretrain a small ViT on a folder of B-scans, to have a base model where none is at hand.

For example:

    python pretrain_base.py --images folder --output ../pretrained_weights/base.pth
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and pretrain."""
    from retfiner.common.cli import parse
    from retfiner.common.progress import LOADING, progress
    from retfiner.training.pretrain_config import PretrainConfig, image_files

    config = parse(PretrainConfig, "Pretrain a small ViT on B-scans by masked autoencoding.")
    image_files(config.images)
    with progress(LOADING):  # torch, which a wrong path does not wait for
        from retfiner.training.pretrain import pretrain

    pretrain(config)


if __name__ == "__main__":
    run_entry_point(main)
