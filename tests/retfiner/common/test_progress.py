"""Silence ends after two seconds: a bar on a terminal, one line a stage in a log file."""

import os
import struct
import subprocess
import sys
import time

import pytest

from retfiner.common import progress as module
from retfiner.common.progress import progress, track

STAGES = """
import time
from retfiner.common import progress as module
from retfiner.common.progress import progress, track
module.DELAY = 0.2
for _ in track(range(5), "fast", 5): pass
for _ in track(range(5), "reading scans", 5, "file"): time.sleep(0.2)
with progress("fitting"):
    for _ in track(range(2), "a part of it"): time.sleep(0.3)
with progress("hashing", 4000, "B") as bar:
    for _ in range(4): time.sleep(0.2); bar.update(1000)
with progress("another process's", 3, shown=False) as bar: time.sleep(0.5); bar.update(3)
print("end", flush=True)
"""


def test_a_log_file_has_a_line_for_each_slow_stage_and_none_for_a_fast_one():
    done = subprocess.run(
        [sys.executable, "-c", STAGES], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines() == ["reading scans: 5 files ...", "fitting ...", "hashing ..."]
    assert done.stdout == "end\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_terminal_has_a_bar_that_goes():
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen([sys.executable, "-c", STAGES], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "fast" not in text and "another" not in text
    assert "reading scans:" in text and "/5 [" in text and "fitting ..." in text
    assert "k/4.00k [" in text
    assert text.rstrip().splitlines()[-1].endswith("end")


def test_of_several_processes_the_first_speaks(capsys, monkeypatch):
    monkeypatch.setattr(module, "DELAY", 0.01)
    monkeypatch.setenv("RANK", "1")
    assert list(track([0.1], "reading")) == [0.1]
    with progress("reading"):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_the_line_is_said_while_a_single_long_step_lasts(capsys, monkeypatch):
    monkeypatch.setattr(module, "DELAY", 0.1)
    with progress("one long step", 1):
        end = time.monotonic() + 5
        said = ""
        while not said and time.monotonic() < end:
            time.sleep(0.02)
            said = capsys.readouterr().err
        assert said == "one long step: 1 image ...\n"


def test_items_and_errors_go_through(capsys):
    def items():
        yield 1
        raise ValueError("the third")

    got = []
    with pytest.raises(ValueError, match="the third"):
        got.extend(track(items(), "reading"))
    assert list(track("ab", "reading", 2)) == ["a", "b"]
    assert capsys.readouterr().err == ""
