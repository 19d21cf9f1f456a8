"""Runs that can be killed: real processes, forked off one that has imported everything.

A fresh interpreter imports for ten seconds; a forked one begins at once, and dies as really.
"""

from __future__ import annotations

import json
import os
import random
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
from tests.helpers.processes import free_port

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

    def start_together(self, config: RefineConfig, processes: int) -> list[int]:
        """Start a run of several processes, as torchrun would; return their ids by rank."""
        port = free_port()
        return [
            self._ask(run=as_plain(config), environment=torchrun(rank, processes, port))
            for rank in range(processes)
        ]

    def wait(self, pid: int) -> int:
        """Wait for a run's end; return its exit status, or minus the signal that killed it."""
        return self._ask(wait=pid)

    def run(self, config: RefineConfig) -> int:
        """Run to the end."""
        return self.wait(self.start(config))

    def run_together(self, config: RefineConfig, processes: int) -> list[int]:
        """Run to the end in several processes; return their statuses."""
        return [self.wait(pid) for pid in self.start_together(config, processes)]

    def kill(self, *pids: int) -> list[int]:
        """Kill a run's processes outright, whatever they are doing."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return [self.wait(pid) for pid in pids]


def torchrun(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return the environment that torchrun gives a process on a single machine."""
    values = {
        "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    return {name: str(value) for name, value in values.items()}


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


def checkpoint_of(parent: Path) -> tuple[int, int] | None:
    """Say which file last.ckpt is at present; each write makes another one."""
    try:
        (found,) = parent.glob("*/last.ckpt")
        return found.stat().st_ino, found.stat().st_mtime_ns
    except (ValueError, FileNotFoundError):
        return None


def kill_again_and_again(
    forks: Forks, config: RefineConfig, kills: int, draw: random.Random, processes: int = 1
) -> None:
    """Kill a run at random moments, each third time while a checkpoint is being written.

    A new checkpoint is awaited first, so that the run gets on.
    """
    for number in range(kills):
        before = checkpoint_of(config.output_dir)
        several = processes > 1
        pids = forks.start_together(config, processes) if several else [forks.start(config)]
        known = {before, None}
        wait_until(lambda known=known: checkpoint_of(config.output_dir) not in known, "a write")
        if number % 3 == 1:
            wait_until(
                lambda: (
                    any(config.output_dir.glob("*/.last-*"))
                    or any(config.output_dir.glob("*/curves.png"))
                ),
                "a half-written checkpoint",
            )
        else:
            time.sleep(draw.random() * 0.5)
        assert set(forks.kill(*pids)) <= {-signal.SIGKILL, 0}


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
    from lightning_utilities.core.rank_zero import rank_zero_only

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
        if "environment" in message:
            os.environ.update(message["environment"])
            rank_zero_only.rank = int(os.environ["RANK"])  # which Lightning reads when imported
        values = {
            name: Path(value) if name in PATHS and value is not None else value
            for name, value in message["run"].items()
            if name in {field.name for field in fields(RefineConfig)}
        }
        run_entry_point(lambda values=values: refine(RefineConfig(**values)))
        return


if __name__ == "__main__":
    main()
