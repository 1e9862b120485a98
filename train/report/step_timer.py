"""Splits a step's time into its phases, without waiting for the device in the step.

On a GPU, a host clock measures the launch of kernels, not their execution. So the timer records CUDA events, which are
read after the step. Waiting for data and for other ranks is always host time. The loader's threads copy batches while
the GPU computes. ``h2d`` is the time that the GPU waited for a copy, not the duration of the copy. ``h2d`` is 0 if
computation hides the whole copy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

__all__ = ["PHASES", "PhaseTimes", "StepTimer", "bottleneck"]

PHASES = ("data", "ranks", "h2d", "forward", "backward", "optimizer")
_ON_HOST = ("data", "ranks")
# If waiting for data takes more than this fraction of the time, it is reported as the bottleneck.
_DATA_SHARE = 0.2


def _alone(_: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class PhaseTimes:
    """The times of one step, which may still be running on the device."""

    def __init__(self, host: dict[str, float], events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]]) -> None:
        self._seconds, self._events = host, events

    def read(self) -> dict[str, float]:
        """Returns the seconds by phase. The device must have completed the step."""
        for name, start, end in self._events:
            self._seconds[name] += start.elapsed_time(end) / 1e3
        self._events = []
        return self._seconds


class StepTimer:
    """Measures the seconds of each phase of a step."""

    def __init__(self, device: torch.device, during: Callable[[str], AbstractContextManager[None]] = _alone) -> None:
        """Measure on ``device``. Each phase also enters ``during(name)``, which tells the other ranks."""
        self._during = during
        self._device, self._on_gpu = device, device.type == "cuda"
        self._host = dict.fromkeys(PHASES, 0.0)
        self._inner_s = 0.0  # time of the host's phases inside the current one
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's time to phase ``name``, without the time of phases inside the block."""
        with self._during(name), self._timed(name):
            yield

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        if self._on_gpu and name not in _ON_HOST:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            self.add(name, start, end)
        else:
            began, outer_s, self._inner_s = time.perf_counter(), self._inner_s, 0.0
            yield
            spent = time.perf_counter() - began
            self._host[name] += spent - self._inner_s
            self._inner_s = outer_s + spent

    def add(self, name: str, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        """Add the time between two events on the device to phase ``name``."""
        self._events.append((name, start, end))

    def take(self) -> PhaseTimes:
        """Returns the times since the last call."""
        times = PhaseTimes(self._host, self._events)
        self._host, self._events = dict.fromkeys(PHASES, 0.0), []
        return times


def bottleneck(totals: dict[str, float]) -> tuple[str, float]:
    """Returns the phase that limits the speed, and its fraction of the time; ``("", 0.0)`` if there is no time."""
    spent = sum(totals.values())
    if not spent:
        return "", 0.0
    shares = {name: seconds / spent for name, seconds in totals.items()}
    name = "data" if shares["data"] > _DATA_SHARE else max(shares, key=lambda key: shares[key])
    return name, shares[name]
