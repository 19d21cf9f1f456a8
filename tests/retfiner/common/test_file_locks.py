"""Locks on storage that has them and on storage that does not."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from retfiner.common.errors import InputError
from retfiner.common.files import lock_file

KINDS = [None, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]

HOLDER = """
import fcntl, os, sys, time
from pathlib import Path
from retfiner.common.files import lock_file
if sys.argv[2] != "None":
    def refuse(handle, operation):
        raise OSError(int(sys.argv[2]), "no locks here")
    fcntl.flock = refuse
lock = lock_file(Path(sys.argv[1]), 0, lambda: None)
print("held", flush=True)
time.sleep(60)
"""


def held():
    return InputError("it is held", got="a lock", remedy="wait")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_one_process_at_a_time_and_none_that_was_killed(tmp_path, monkeypatch, kind):
    if kind is not None:

        def refuse(handle, operation):
            raise OSError(kind, os.strerror(kind))

        monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "a.lock"
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER, path, str(kind)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="it is held") as caught:
            lock_file(path, 0, held)
        assert ("if it is gone, remove" in caught.value.remedy) == (kind is not None)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    lock = lock_file(path, 5, held)
    lock.release()
