"""Splits a step's time into its phases, without waiting for the device in the step.

On a GPU, a host clock measures the launch of kernels, not their execution. So the timer records CUDA events, which are
read after the step. This holds for waiting too: a batch that the host waits for while the GPU still computes costs
nothing, and the events before and after that wait then lie close together. The loader's threads copy batches while the
GPU computes. ``h2d`` is the time that the GPU waited for a copy, not the duration of the copy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

from vlapipe.train.report.verdict import PHASES

__all__ = ["PHASES", "PhaseTimes", "StepTimer"]

_Span = tuple[str, str, torch.cuda.Event, torch.cuda.Event]  # phase, the phase around it or "", start, end


def _alone(_: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class PhaseTimes:
    """The times of one step, which may still be running on the device."""

    def __init__(self, host: dict[str, float], spans: list[_Span]) -> None:
        self._seconds, self._spans = host, spans

    def read(self) -> dict[str, float]:
        """Returns the seconds by phase. The device must have completed the step."""
        for name, outer, start, end in self._spans:
            _add(self._seconds, name, outer, start.elapsed_time(end) / 1e3)
        self._spans = []
        return self._seconds


def _add(seconds: dict[str, float], name: str, outer: str, spent: float) -> None:
    """Add ``spent`` to phase ``name``, and take it out of the phase around it."""
    seconds[name] += spent
    if outer:
        seconds[outer] -= spent


class StepTimer:
    """Measures the seconds of each phase of a step."""

    def __init__(self, device: torch.device, during: Callable[[str], AbstractContextManager[None]] = _alone) -> None:
        """Measure on ``device``. Each phase also enters ``during(name)``, which tells the other ranks."""
        self._during = during
        self.names_in_trace = False  # whether torch's profiler sees the phases
        self._device, self._on_gpu = device, device.type == "cuda"
        self._host = dict.fromkeys(PHASES, 0.0)
        self._inside = ""  # the current phase
        self._spans: list[_Span] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's time to phase ``name``, without the time of phases inside the block."""
        with self._during(name), self._timed(name):
            yield

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        outer, self._inside = self._inside, name
        start = self._mark() if self._on_gpu else None
        began = time.perf_counter()
        with torch.profiler.record_function(name) if self.names_in_trace else contextlib.nullcontext():
            yield
        self._inside = outer
        if start is not None:
            self.add(name, start, self._mark())
        else:
            _add(self._host, name, outer, time.perf_counter() - began)

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def add(self, name: str, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        """Add the time between two events on the device to phase ``name``, and not to the current phase."""
        self._spans.append((name, self._inside, start, end))

    def take(self) -> PhaseTimes:
        """Returns the times since the last call."""
        times = PhaseTimes(self._host, self._spans)
        self._host, self._spans = dict.fromkeys(PHASES, 0.0), []
        return times
