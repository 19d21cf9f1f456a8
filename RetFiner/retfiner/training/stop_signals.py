"""A run that is told to stop ends its step, saves itself and says how to go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from retfiner.common.errors import Stopped
from retfiner.common.processes import SIGNALS


class StopSignals:
    """Note signals instead of dying of them, while the context lasts.

    A second Ctrl-C does not wait for the end of the step.

    Attributes:
        received: The first signal that came, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
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
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise Stopped(number, "stopped at once by a second Ctrl-C; nothing more was saved")
        self.received = self.received or number
