"""Scripts as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFINEMENT = ROOT / "RetFiner"


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


def copy_repository(folder: Path) -> Path:
    """Copy all code into a folder with a blank, so that nothing is written into this one."""
    copy = folder / "my clone"
    left = shutil.ignore_patterns("_data", "_weights", "_features", "__*s", "__pycache__", "models")
    for name in ("RetFiner", "linear_probing"):
        shutil.copytree(ROOT / name, copy / name, ignore=left)
    (copy / "pretrained_weights").mkdir()
    return copy


def paste(line: str, copy: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a line in the probing folder of a copy, as pasted into a terminal there."""
    environment = os.environ | {
        "PYTHONPATH": f"{copy}/RetFiner:{copy}/linear_probing",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-c", line], cwd=copy / "linear_probing", env=environment,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def assert_clear_error(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """The script ended with status 2 and a message in plain words, without a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for words in expected:
        assert words in done.stderr, done.stderr
