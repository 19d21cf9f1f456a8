"""Turn images into vectors: a table, a folder, or volumes to one Parquet file.

    python embed.py --model models/NAME --data scans --output features.parquet

``--help`` lists every setting.
"""

from __future__ import annotations

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line and embed."""
    from retfiner.common.cli import parse
    from retfiner.embed.config import EmbedConfig

    config = parse(EmbedConfig, "Turn the images of a table, a folder or volumes into vectors.")
    from retfiner.embed.run import embed

    embed(config)


if __name__ == "__main__":
    run_entry_point(main)
