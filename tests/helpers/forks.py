"""Runs that can be killed: real processes, forked off one that has imported everything.

A fresh interpreter imports for ten seconds; a forked one begins at once, and dies as really.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from retfiner.common.cli import as_plain
from retfiner.config import RefineConfig

PATHS = {"model_weights", "train_csv", "val_csv", "image_root", "text_encoder", "output_dir"}
PATHS |= {"resume"}
ROOT = Path(__file__).parents[2]


class Forks:
    """The process that forks, seen from the test.

    Args:
        log: File that gets all that runs print.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forks", str(log)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )

    def _ask(self, **message: object) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, config: RefineConfig) -> int:
        """Start a run and return its process id."""
        return self._ask(run=as_plain(config))

    def wait(self, pid: int) -> int:
        """Wait for a run's end; return its exit status, or minus the signal that killed it."""
        return self._ask(wait=pid)

    def run(self, config: RefineConfig) -> int:
        """Run to the end."""
        return self.wait(self.start(config))

    def kill(self, pid: int) -> int:
        """Kill a run outright, whatever it is doing."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)


@contextmanager
def forking(log: Path) -> Iterator[Forks]:
    """Keep a forking process for a while."""
    forks = Forks(log)
    try:
        yield forks
    finally:
        assert forks.server.stdin is not None
        forks.server.stdin.close()
        forks.server.wait(timeout=30)


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Look again and again, at short intervals."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.0005)


def main() -> None:
    """Fork a run for each line that asks for one."""
    import matplotlib.backends.backend_agg
    import pandas
    import torch.utils.tensorboard

    from retfiner.common.errors import run_entry_point
    from retfiner.refine import refine

    assert matplotlib and pandas and torch  # imported once, for all
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for line in sys.stdin:
        message = json.loads(line)
        if "wait" in message:
            _, status = os.waitpid(message["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(0)
        values = {
            name: Path(value) if name in PATHS and value is not None else value
            for name, value in message["run"].items()
            if name in {field.name for field in fields(RefineConfig)}
        }
        run_entry_point(lambda values=values: refine(RefineConfig(**values)))
        return


if __name__ == "__main__":
    main()
