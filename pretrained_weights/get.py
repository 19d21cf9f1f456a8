"""Download published weights, or say where to click; without a name, list them.

    python get.py
    python get.py RETFound

``train.py --model_weights RETFound`` and ``probe.py`` then find them by that name.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("retfiner") is None:  # not installed: it lies beside this folder
    sys.path.append(str(Path(__file__).resolve().parents[1] / "RetFiner"))

from retfiner.common.errors import run_entry_point


def main() -> None:
    """Parse the command line, and list or download."""
    from retfiner.common.cli import parse
    from retfiner.common.commands import command
    from retfiner.vision.published.get import DESCRIPTION, GetConfig, get, show

    config = parse(GetConfig, DESCRIPTION)
    if config.name is None:
        show(output=config.output)
        return
    path = get(config.name, config.output)
    words = ("--model_weights", path, "--train_csv", "path/to/pairs.csv")
    print(f"Next:     {command('RetFiner/train.py', *words)}")


if __name__ == "__main__":
    run_entry_point(main)
