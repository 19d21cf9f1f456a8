"""Commands of this repository, as they can be pasted into the shell that the user stands in."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def command(script: str, *words: object) -> str:
    """Write down how a script of this repository is run from the current folder, words quoted."""
    found = shutil.which("python")
    is_this = found is not None and Path(found).parent == Path(sys.executable).parent
    python = "python" if is_this else sys.executable
    return shlex.join([python, shorter(REPOSITORY / script), *map(str, words)])


def shorter(path: Path) -> str:
    """Write a path from the current folder, or in full where that is shorter."""
    return min(os.path.relpath(path), str(path.absolute()), key=len)
