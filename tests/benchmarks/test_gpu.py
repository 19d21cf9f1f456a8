"""``gpu.sh`` rehearsed on a CPU: every part of it runs and says what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def rehearse(folder, *arguments):
    command = [SCRIPT, "--device", "cpu", "--output", folder, *arguments]
    done = subprocess.run(
        command,
        check=False,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    return done, json.loads((folder / "gpu.json").read_text())


@pytest.mark.slow
def test_a_rehearsal_of_every_section(tmp_path):
    done, found = rehearse(tmp_path, "--seconds", "1500")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    for section in ("checks", "runs", "measure", "profile"):
        assert found[section]["ok"], found[section]
    assert "interrupted by SIGKILL" in found["runs"]["items"]


@pytest.mark.slow
def test_a_section_that_takes_too_long_is_told_and_stops_nothing(tmp_path):
    done, found = rehearse(tmp_path, "--seconds", "1", "checks", "profile")
    assert done.returncode == 1
    for section in ("checks", "profile"):
        assert found[section]["status"] == "stopped after 1 s"
    assert "checks: 0 of 0 ok" in done.stdout
