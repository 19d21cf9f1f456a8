"""A call in a process of its own, with little memory and little time."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from retfiner.common.errors import InputError


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        kind: ``returned``, the name of the exception's class, or ``hung``.
        text: What was returned or raised.
        megabytes: How much more memory was held at its peak than before.
    """

    kind: str
    text: str
    megabytes: float


def _memory(name: str) -> int:
    """Read VmHWM (peak) or VmRSS or VmSize of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def bounded(call: Callable[[], Any], megabytes: int = 2000, seconds: float = 20) -> Outcome:
    """Call a function in a fork of this process, which has everything imported already.

    Args:
        call: The function.
        megabytes: Memory it may ask for beyond what is there: a safety net for the machine. Tests
            compare ``Outcome.megabytes`` with what a reader should need.
        seconds: Time after which it counts as hung.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _run(call, megabytes, send)
    os.close(send)
    deadline, content = time.monotonic() + seconds, b""
    with os.fdopen(receive, "rb") as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(pipe.fileno(), 65536) if ready else b""
            content += chunk
            if not chunk:
                break
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not ready:
        return Outcome("hung", f"after {seconds} s", 0)
    if not content:
        return Outcome("died", f"status {status}", 0)
    return Outcome(*json.loads(content))


def _run(call: Callable[[], Any], megabytes: int, send: int) -> None:
    """Run in the child; never returns."""
    kind, text = "died", ""
    try:
        torch.set_num_threads(
            1
        )  # the parent's threads are not in a fork, which would wait for them
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _memory("VmRSS")
        limit = _memory("VmSize") + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            kind, text = "returned", str(call())[:4000]
        except InputError as error:
            kind, text = "InputError", str(error)
        except BaseException as error:
            kind, text = type(error).__name__, str(error)
        grown = (_memory("VmHWM") - before) / 2**20
        os.write(send, json.dumps([kind, text[:20000], grown]).encode())
    finally:
        os._exit(0)


def assert_refused(call: Callable[[], Any], words: str = "", megabytes: float = 300) -> Outcome:
    """Assert that a call ends with an InputError, in bounded memory and time."""
    outcome = bounded(call)
    assert outcome.kind == "InputError", outcome
    assert "not enough memory" not in outcome.text, outcome
    assert outcome.megabytes < megabytes, outcome
    assert words in outcome.text, outcome
    assert len(outcome.text) < 5000, len(outcome.text)
    return outcome
