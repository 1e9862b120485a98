"""Sends metrics to a second destination on a separate thread, so that no failure there stops or slows a run."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

__all__ = ["Destination", "MetricsSink"]

_MOST_WAITING = 10_000  # maximum number of steps in the queue
_CLOSE_S = 60.0
_TEAR_DOWN_S = 2.0


class Destination(Protocol):
    """A program that shows metrics. Its methods are called by one thread, and may block or fail."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Accept a step's values."""

    def finish(self) -> None:
        """Write or send the remaining values."""

    def abandon(self) -> None:
        """Cancel all that would block the end of the process, after a failure."""


class MetricsSink:
    """Hands values to a ``Destination`` on a thread. The first failure is printed. After it, nothing more is sent."""

    def __init__(self, name: str, destination: Destination, say: Callable[[str], None]) -> None:
        self._name, self._destination, self._say = name, destination, say
        self._values: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(_MOST_WAITING)
        self._is_broken = False
        self._thread = threading.Thread(target=self._send, name=f"vlapipe-{name}", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Accept a step's values. Never waits."""
        if self._is_broken:
            return
        try:
            self._values.put_nowait((step, values))
        except queue.Full:
            self._break(f"it takes no more after {_MOST_WAITING} steps")

    def close(self) -> None:
        """Send the remaining values. Waits one minute at most."""
        with contextlib.suppress(queue.Full):
            self._values.put_nowait(None)
        self._thread.join(0 if self._is_broken else _CLOSE_S)
        if self._thread.is_alive():
            self._break(f"it does not finish within {_CLOSE_S:.0f} s")
        if self._is_broken:
            ending = threading.Thread(target=self._abandon, daemon=True)
            ending.start()
            ending.join(_TEAR_DOWN_S)

    def _send(self) -> None:
        try:
            while (item := self._values.get()) is not None:
                self._destination.log(*item)
            self._destination.finish()
        except Exception as error:  # noqa: BLE001 - a killed helper process, a full disk, a changed API
            self._break(f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": "))

    def _abandon(self) -> None:
        with contextlib.suppress(Exception):
            self._destination.abandon()

    def _break(self, why: str) -> None:
        if not self._is_broken:
            self._is_broken = True
            self._say(f"{self._name}: {why}; training goes on, and metrics.jsonl has all metrics")
