"""Turns SIGINT and SIGTERM into a wish to stop after the current step; a later second one ends the process as usual."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopSignal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Ctrl-C reaches a rank twice: from the terminal, and passed on by torchrun a moment later. That is one wish, not two.
_ONE_WISH_S = 5.0


class StopSignal:
    """``requested`` names the signal that came, or is empty; use as a context manager."""

    def __init__(self) -> None:
        self.requested = ""
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._since = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._since > _ONE_WISH_S:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __enter__(self) -> StopSignal:
        # Only the main thread may set handlers; elsewhere whoever owns it decides when to stop.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
