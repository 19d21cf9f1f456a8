"""One kind of error for everything a user can put right."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from retfiner.common.commands import REPOSITORY, shorter


class InputError(ValueError):
    """Something the user gave cannot be used: what was got, what is expected and what to do."""

    def __init__(
        self,
        problem: str,
        *,
        got: object | None = None,
        expected: object | None = None,
        remedy: str | None = None,
    ) -> None:
        parts = [problem]
        for label, value in (("got", got), ("expected", expected), ("remedy", remedy)):
            if value is not None:
                parts.append(f"  {label + ':':<9} {value}")
        super().__init__("\n".join(parts))
        self.problem, self.got, self.expected, self.remedy = problem, got, expected, remedy

    def changed(self, *, got: object | None = None, remedy: str | None = None) -> InputError:
        """Say the same, with something else got or another remedy."""
        got, remedy = got or self.got, remedy or self.remedy
        return InputError(self.problem, got=got, expected=self.expected, remedy=remedy)

    def advises(self, words: str) -> bool:
        """Say whether the remedy has these words, as the name of a flag."""
        return words in (self.remedy or "")

    @property
    def in_one_line(self) -> str:
        """The whole message as a cell of a table, or one of many reasons."""
        return "; ".join(" ".join(line.split()) for line in str(self).splitlines())


class Stopped(RuntimeError):  # noqa: N818 - it is no error
    """A run ended because a signal told it to: what was saved, and how to go on."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number


def run_entry_point(main: Callable[[], object]) -> None:
    """Run a script's ``main``; a user's error becomes a clear message and exit status 2.

    A run that was told to stop ends with 128 and the signal's number, Ctrl-C with 130.
    """
    # Idle OpenMP threads sleep: where cores are shared, small steps took four times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log file shows each line as it is said, and a terminal what its letters cannot, as
        # \u03a9: no run ends because of how a folder or a report is spelt.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        _require_folder()
        try:
            main()
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if not package or find_spec(package) is not None:
                raise
            raise _not_installed(package) from error
    except InputError as error:
        sys.stderr.write(f"\nerror: {error}\n")
        raise SystemExit(2) from None
    except Stopped as stopped:
        sys.stderr.write(f"\n{stopped}\n")
        raise SystemExit(stopped.status) from None
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped by the user\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        if not _is_closed(sys.stdout):
            raise
        # As in `train.py | head`: whoever read what we print has ended. What Python still holds for
        # it goes nowhere, or it would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write("\nended: what is printed can no longer be read (the pipe was closed)\n")
        raise SystemExit(128 + 13) from None  # as a shell counts SIGPIPE, which Windows lacks


def _require_folder() -> None:
    """Make sure that relative paths mean something.

    Raises:
        InputError: If the folder this was started in is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError(
            "the folder this was started in is gone",
            got=os.environ.get("PWD"),
            remedy="cd to a folder that is there",
        ) from error


def _is_closed(stream: TextIO) -> bool:
    """Say whether nobody reads a stream any more; other pipes, as to workers, break as well."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return True
    return False


def _not_installed(package: str) -> InputError:
    activate = REPOSITORY / ".venv" / "bin" / "activate"
    remedy = f"source {shlex.quote(shorter(activate))}"
    if not activate.is_file() or Path(sys.prefix) == activate.parents[1]:
        remedy = f"bash {shlex.quote(shorter(REPOSITORY / 'install.sh'))}, then {remedy}"
    return InputError(
        f"the package {package} is not installed for this Python",
        got=sys.executable,
        remedy=remedy,
    )


def shorten(items: list[str], limit: int = 8) -> str:
    """Join names for a message, the first ``limit`` of them, and say how many are left out."""
    text = ", ".join(items[:limit])
    return text if len(items) <= limit else f"{text}, ... ({len(items) - limit} more)"
