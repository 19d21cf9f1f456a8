"""A user's error says what to do and ends a script with status 2; a bug keeps its traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from retfiner.common.errors import InputError, run_entry_point, shorten


def test_a_message_says_got_expected_and_remedy():
    error = InputError("the table is empty", got=0, expected="at least 1 row", remedy="add one")
    assert str(error).splitlines() == [
        "the table is empty",
        "  got:      0",
        "  expected: at least 1 row",
        "  remedy:   add one",
    ]
    assert error.problem == "the table is empty"
    assert str(InputError("only this")) == "only this"


def test_a_users_error_ends_a_script_with_status_2_and_no_traceback(capsys):
    def main():
        raise InputError("no such file", got="a.csv")

    with pytest.raises(SystemExit) as caught:
        run_entry_point(main)
    assert caught.value.code == 2
    assert caught.value.__suppress_context__
    assert capsys.readouterr().err == "\nerror: no such file\n  got:      a.csv\n"


def test_an_interrupted_script_ends_with_status_130(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_entry_point(main)
    assert caught.value.code == 130
    assert "stopped by the user" in capsys.readouterr().err


def test_a_bug_is_not_dressed_up_as_a_users_error():
    def main():
        raise ValueError("not the user's")

    with pytest.raises(ValueError, match="not the user's"):
        run_entry_point(main)


SAYS = """
import sys
from retfiner.common.errors import run_entry_point
run_entry_point(lambda: print(sys.argv[1]))
"""


@pytest.mark.parametrize("name", ["\u03a9", os.fsdecode(b"M\xfcller")])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_a_terminal_cannot_show_ends_no_script(name, encoding):
    done = subprocess.run(
        [sys.executable, "-c", SAYS, name],
        check=False,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name.encode(encoding, errors="backslashreplace")


def test_a_folder_that_is_gone_is_said(tmp_path):
    (tmp_path / "a").mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom retfiner.common.errors import run_entry_point\n"
        "os.rmdir(os.getcwd())\nrun_entry_point(lambda: print('ran'))\n"
    )
    done = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, cwd=tmp_path / "a"
    )
    assert done.returncode == 2, done.stderr
    assert "the folder this was started in is gone" in done.stderr
    assert "remedy:" in done.stderr


def test_names_left_out_are_counted():
    names = [f"n{i}" for i in range(10)]
    assert shorten(names[:8]) == "n0, n1, n2, n3, n4, n5, n6, n7"
    assert shorten(names) == "n0, n1, n2, n3, n4, n5, n6, n7, ... (2 more)"
    assert shorten(names, 1) == "n0, ... (9 more)"
    assert shorten([]) == ""


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
def test_a_closed_pipe_ends_a_script_without_a_traceback():
    """As in `train.py | head -1`; a broken pipe to a worker is another matter."""
    code = """
from retfiner.common.errors import run_entry_point
def main():
    for number in range(1_000_000):
        print(number)
run_entry_point(main)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert said == "\nended: what is printed can no longer be read (the pipe was closed)\n"

    def to_a_worker():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_entry_point(to_a_worker)
