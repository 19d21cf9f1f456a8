"""A file is the old one or the new one, never half of one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from retfiner.common.files import file_sha256, whole_file, write_text


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with whole_file(path) as temporary:
        assert temporary.suffix == ".csv" and temporary.parent == path.parent
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), whole_file(path) as temporary:
        temporary.write_text("half of the new")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["best.ckpt"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_text("old")
    code = (
        "import os, signal, sys\n"
        "from retfiner.common.files import whole_file\n"
        "with whole_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_files_are_readable_as_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert os.umask(old) == old, "the process's own umask is left as it was"


def test_text_is_utf8_on_every_machine(tmp_path):
    write_text(tmp_path / "a.txt", "Ödem, 20 µm\n")
    assert (tmp_path / "a.txt").read_bytes() == "Ödem, 20 µm\n".encode()


def test_hash_of_a_file_larger_than_a_block(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()
