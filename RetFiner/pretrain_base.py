"""Pretrain a small ViT on a folder of B-scans, to have a base model where none is at hand.

For example:

    python pretrain_base.py --images folder --output ../pretrained_weights/base.pth
"""

from __future__ import annotations

from retfiner.common.cli import parse
from retfiner.common.errors import run_entry_point
from retfiner.training.pretrain import PretrainConfig, pretrain


def main() -> None:
    """Parse the command line and pretrain."""
    pretrain(parse(PretrainConfig, "Pretrain a small ViT on B-scans by masked autoencoding."))


if __name__ == "__main__":
    run_entry_point(main)
