"""Commands in a shell where nothing was activated, in any folder, nothing of ours installed."""

import os
import subprocess
import sys
import sysconfig

import pytest

from tests.scripts.test_help import COMMANDS, ROOT, SCRIPTS


def run_bare(folder, *words, **environment):
    """Run Python without site-packages, and so without the links of an editable install."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [sys.executable, "-S", *map(str, words)], cwd=folder, env=kept | environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.rsplit("/", 1)[-1])
def test_a_python_without_the_packages_is_told_what_to_do(command):
    words = command.split() if command.startswith("-m") else [command]
    done = run_bare(ROOT / "RetFiner", *words, "--help")
    assert done.returncode == 2, done.stderr
    assert "is not installed for this Python" in done.stderr
    assert f"got:      {sys.executable}" in done.stderr
    remedy = "source ../.venv/bin/activate"
    if not (ROOT / ".venv").exists():
        remedy = f"bash ../install.sh, then {remedy}"
    assert f"remedy:   {remedy}\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_need_no_installation_of_ours_and_no_folder(script, tmp_path):
    done = run_bare(tmp_path, script, "--help", PYTHONPATH=sysconfig.get_path("purelib"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script.name}")


def test_a_module_missing_within_a_package_that_is_there_keeps_its_traceback(capsys):
    from retfiner.common.errors import run_entry_point

    def main():
        import json.nothing  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        run_entry_point(main)
