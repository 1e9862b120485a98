"""Stops a run for an outside reason: a signal or a full disk.

The first signal requests a stop after the current step. A second, later signal ends the process at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from safetensors import SafetensorError

from vlapipe.schemas.errors import StoppedError
from vlapipe.schemas.surroundings import is_from_surroundings, stopped_by

__all__ = ["StopSignal", "explain_surroundings"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Ctrl-C reaches a rank twice: from the terminal, and a moment later from torchrun. Both count as one request.
_ONE_WISH_S = 5.0


class StopSignal:
    """Context manager that catches SIGINT and SIGTERM. ``requested`` is the name of the received signal, or empty."""

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
        # Only the main thread may set signal handlers. In another thread, the caller decides when to stop.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


@contextlib.contextmanager
def explain_surroundings(where: Path) -> Iterator[None]:
    """Explain a write error of the block, which writes to ``where``.

    Raises:
        StoppedError: the write failed because of the disk, a quota or memory.
    """
    try:
        yield
    except (OSError, MemoryError, SafetensorError) as error:
        found = _system_error(error)
        if not is_from_surroundings(found):
            raise
        stopped = stopped_by(found, where)
        raise StoppedError(stopped.problem, f"{stopped.cure} with --resume") from None


def _system_error(error: OSError | MemoryError | SafetensorError) -> OSError | MemoryError:
    """Returns the system's error behind ``error``. A safetensors error has the error number only in its text."""
    if isinstance(error, OSError | MemoryError):
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))
    code = int(number[1]) if number else errno.EINVAL
    return OSError(code, os.strerror(code))
