"""Splits a step's time into waiting for data, host-to-device, forward/backward, optimizer, with one device sync.

On a GPU, host clocks would time the launching of work and not the work, so events are recorded among it and read at
the step's end. Waiting for data is host time everywhere. Threads of a loader copy batches while the GPU computes:
``h2d`` is what the GPU waited for a copy, not what the copy took, and 0 if computation hid it all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

__all__ = ["PHASES", "StepTimer", "bottleneck"]

PHASES = ("data", "h2d", "compute", "optimizer")
# Past this share of the time, waiting for data is worth doing something about.
_DATA_SHARE = 0.2


class StepTimer:
    """Seconds of each phase since ``read`` was last called, and over the whole run without its first step."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._on_gpu = device, device.type == "cuda"
        self._host = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._warm = False
        self.num_steps = 0  # that the totals are over
        self.totals = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time as ``name``."""
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
        """Count the time between two events on the device as ``name``."""
        self._events.append((name, start, end))

    def read(self) -> dict[str, float]:
        """Seconds by phase; waits for the device, and begins anew."""
        seconds, self._host = self._host, dict.fromkeys(PHASES, 0.0)
        if self._events:
            torch.cuda.synchronize(self._device)
            for name, start, end in self._events:
                seconds[name] += start.elapsed_time(end) / 1e3
            self._events.clear()
        if self._warm:  # the first step builds caches and compiles, and is left out of the totals
            self.num_steps += 1
            for name in PHASES:
                self.totals[name] += seconds[name]
        self._warm = True
        return seconds


def bottleneck(totals: dict[str, float]) -> tuple[str, float]:
    """The phase that holds the run back, and its share of the time."""
    spent = sum(totals.values())
    if not spent:
        return "", 0.0
    shares = {name: seconds / spent for name, seconds in totals.items()}
    name = "data" if shares["data"] > _DATA_SHARE else max(shares, key=lambda key: shares[key])
    return name, shares[name]
