"""prepare_dataset.py as its users run it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    assert re.search(r"all( +\d+){6}", said.stdout)
    assert "probe.py --init_weights path/to/base.pth" in said.stdout
    images = sorted((tmp_path / "data" / "OCTDL").rglob("*.png"))
    assert len(images) == 84


def test_errors_say_what_to_do(tmp_path):
    said = script("OCTDL", code=2).stderr
    assert "--source" in said and "Traceback" not in said
    said = script("Nothing", "--source", tmp_path, "--output", tmp_path / "x", code=2).stderr
    assert "OCTDL" in said and "Traceback" not in said
    said = script("OCTDL", "--source", tmp_path / "absent.zip", code=2).stderr
    assert "absent.zip" in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interruption_leaves_nothing_behind_and_the_old_data_set(tmp_path, workers):
    source = write_octdl(tmp_path / "download", per_class=300)
    kept = tmp_path / "data" / "OCTDL" / "train" / "AMD" / "old.png"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"old")
    words = ["OCTDL", "--source", source, "--output", tmp_path / "data", "--overwrite"]
    started = subprocess.Popen(
        [sys.executable, "prepare_dataset.py", *map(str, words), "--num_workers", str(workers)],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all its processes get the signal, as from a terminal
        # Tests that a shell runs in the background are told to ignore Ctrl-C, and so would this be.
        preexec_fn=lambda: signal.signal(  # noqa: PLW1509 - no thread runs here
            signal.SIGINT, signal.default_int_handler
        ),
    )
    while started.poll() is None and not any((tmp_path / "data").glob(".OCTDL-*/OCTDL/*/*/*.png")):
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    *stages, last = errors.strip().splitlines()
    assert (started.returncode, last) == (130, "stopped by the user")
    assert all(not line or line.endswith(" ...") for line in stages), "stages of over two seconds"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["OCTDL"]
    assert kept.read_bytes() == b"old"
