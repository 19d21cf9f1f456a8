"""A run that is told to stop ends its step, saves itself and says how to go on."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from retfiner.common.errors import Stopped
from retfiner.common.processes import SIGNALS

PATIENCE = 5.0
"""Seconds for which the main thread may be deaf to a signal; clusters kill after 30."""


if hasattr(os, "register_at_fork"):  # a worker's signals are not its parent's
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class StopSignals:
    """Note signals instead of dying of them, while the context lasts.

    A second Ctrl-C does not wait for the end of the step. Python hears of a signal between two of
    its instructions: where the main thread waits for other processes, inside a library, it would
    not for half an hour. A thread that finds it so after :data:`PATIENCE` seconds ends the process.

    Attributes:
        received: The first signal that came, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}
        self._heard, self._wake = socket.socketpair()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            self._wake.setblocking(False)
            signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()
        self.take()
        return self

    def take(self) -> None:
        """Handle the signals; once more where a library has put its own handlers in between."""
        for number in self._before:
            signal.signal(number, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before:
            signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._wake.close()  # which ends the thread

    def _watch(self) -> None:
        """End the process if the main thread does not come to know of a signal."""
        with self._heard:
            while heard := self._heard.recv(1):
                number = heard[0]
                if number not in SIGNALS:
                    continue
                end = time.monotonic() + PATIENCE
                while not self.received and time.monotonic() < end:
                    time.sleep(0.1)
                if not self.received:
                    name = signal.Signals(number).name
                    os.write(2, f"\n{name}: ended while waiting for other processes\n".encode())
                    os._exit(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise Stopped(number, "stopped at once by a second Ctrl-C; nothing more was saved")
        self.received = self.received or number
