"""Scripts as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REFINEMENT = Path(__file__).parents[2] / "RetFiner"


def run_script(
    name: str, *words: str | Path, cwd: Path = REFINEMENT
) -> subprocess.CompletedProcess[str]:
    """Run a script of the refinement folder; nothing is fetched from a network."""
    return subprocess.run(
        [sys.executable, str(REFINEMENT / name), *map(str, words)],
        cwd=cwd,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_clear_error(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """The script ended with status 2 and a message in plain words, without a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for words in expected:
        assert words in done.stderr, done.stderr
