"""One process at a time works in a folder."""

import signal
import subprocess
import sys

import pytest

from retfiner.common.errors import InputError
from retfiner.training.run_folder import lock_run_folder

HOLDER = """
import sys
from pathlib import Path
from retfiner.training.run_folder import lock_run_folder
with lock_run_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_run_is_held_by_one_process_until_it_ends_however_it_ends(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match="another process is at the run") as caught,
        lock_run_folder(tmp_path),
    ):
        pass
    assert f"process {holder.pid} on" in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_run_folder(tmp_path):
        assert (tmp_path / "run.lock").exists()
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_left_or_removed_as_asked(tmp_path):
    with lock_run_folder(tmp_path):
        pass
    assert tmp_path.is_dir()
    with lock_run_folder(tmp_path, remove_if_empty=True):
        pass
    assert not tmp_path.exists()
