"""prepare_dataset.py as its users run it."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.downloads import write_octdl

FOLDER = Path(__file__).parents[2] / "linear_probing"


def script(*words, code=0):
    done = subprocess.run(
        [sys.executable, "prepare_dataset.py", *map(str, words)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_list_needs_nothing_else():
    said = script("--list").stdout
    for word in ("Duke_iAMD", "OLIVES", "CC BY-NC-ND 4.0", "octdl", "CNV, DME, DRUSEN, NORMAL"):
        assert word.lower() in said.lower()


def test_a_download_is_prepared_with_processes_and_counted(tmp_path):
    source = write_octdl(tmp_path / "download", per_class=12)
    said = script("OCTDL", "--source", source, "--output", tmp_path / "data", "--num_workers", 2)
    assert "images / patients" in said.stdout
    assert "Next:    python probe.py" in said.stdout
    images = sorted((tmp_path / "data" / "OCTDL").rglob("*.png"))
    assert len(images) == 84


def test_errors_say_what_to_do(tmp_path):
    said = script("OCTDL", code=2).stderr
    assert "--source" in said and "Traceback" not in said
    said = script("Nothing", "--source", tmp_path, "--output", tmp_path / "x", code=2).stderr
    assert "OCTDL" in said and "Traceback" not in said
    said = script("OCTDL", "--source", tmp_path / "absent.zip", code=2).stderr
    assert "absent.zip" in said and "Traceback" not in said
