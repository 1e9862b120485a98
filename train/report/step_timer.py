"""Splits a step's time into waiting for data, host-to-device, forward/backward, optimizer, with one device sync.

On a GPU, a host clock measures the launch of kernels, not their execution. So the timer records CUDA events and reads
them at the end of the step. Waiting for data is always host time. The loader's threads copy batches while the GPU
computes. ``h2d`` is the time that the GPU waited for a copy, not the duration of the copy. ``h2d`` is 0 if computation
hides the whole copy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

__all__ = ["PHASES", "StepTimer", "bottleneck"]

PHASES = ("data", "h2d", "compute", "optimizer")
# If waiting for data takes more than this fraction of the time, it is reported as the bottleneck.
_DATA_SHARE = 0.2


class StepTimer:
    """Measures the seconds of each phase: since the last ``read``, and in total over the run without its first step."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._on_gpu = device, device.type == "cuda"
        self._host = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._warm = False
        self.num_steps = 0  # number of steps in ``totals``
        self.totals = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's time to phase ``name``."""
        if self._on_gpu and name != "data":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            self.add(name, start, end)
        else:
            began = time.perf_counter()
            yield
            self._host[name] += time.perf_counter() - began

    def add(self, name: str, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        """Add the time between two events on the device to phase ``name``."""
        self._events.append((name, start, end))

    def read(self) -> dict[str, float]:
        """Returns the seconds by phase since the last call, and resets them. Synchronizes with the device."""
        seconds, self._host = self._host, dict.fromkeys(PHASES, 0.0)
        if self._events:
            torch.cuda.synchronize(self._device)
            for name, start, end in self._events:
                seconds[name] += start.elapsed_time(end) / 1e3
            self._events.clear()
        if self._warm:  # the totals leave out the first step, which builds caches and compiles
            self.num_steps += 1
            for name in PHASES:
                self.totals[name] += seconds[name]
        self._warm = True
        return seconds


def bottleneck(totals: dict[str, float]) -> tuple[str, float]:
    """Returns the phase that limits the speed, and its fraction of the time; ``("", 0.0)`` if there is no time."""
    spent = sum(totals.values())
    if not spent:
        return "", 0.0
    shares = {name: seconds / spent for name, seconds in totals.items()}
    name = "data" if shares["data"] > _DATA_SHARE else max(shares, key=lambda key: shares[key])
    return name, shares[name]
