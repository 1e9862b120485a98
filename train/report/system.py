"""Measures the machine beside the training: memory of GPU and host, and how busy the GPU is. No step waits for it."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["BusyMeter", "cpu_memory_percent", "gpu_memory_gb", "system_values"]

_MEMINFO = Path("/proc/meminfo")
_BETWEEN_S = 0.5  # between two questions to the driver, which itself looks at the last 1/6 s to 1 s


class BusyMeter:
    """Asks the driver (NVML) on a thread how busy the GPU is. Starts no thread for a CPU.

    Busy means that a kernel ran, not that the kernel used all of the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._percents, self._newest = device, list[float](), 0.0
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        if device.type == "cuda" and importlib.util.find_spec("pynvml") is not None:
            self._thread = threading.Thread(target=self._ask, name="vlapipe-gpu-busy", daemon=True)
            self._thread.start()

    def take(self) -> float:
        """Returns the mean percentage since the last call, or the newest one; 0 if it is unknown."""
        percents, self._percents = self._percents, []
        if percents:
            self._newest = sum(percents) / len(percents)
        return self._newest

    def __enter__(self) -> BusyMeter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join()

    def _ask(self) -> None:
        with contextlib.suppress(Exception):  # a driver without NVML, or a container that hides it
            while not self._ends.wait(_BETWEEN_S):
                self._percents.append(float(torch.cuda.utilization(self._device)))


def system_values(device: torch.device, busy: BusyMeter) -> Mapping[str, float]:
    """Returns the machine's values for a line of the metrics."""
    return {
        "system/gpu_mem_GB": gpu_memory_gb(device),
        "system/gpu_busy_%": busy.take(),
        "system/cpu_mem_%": cpu_memory_percent(),
    }


def gpu_memory_gb(device: torch.device) -> float:
    """Returns the maximum GPU memory that this process has reserved, in units of 1e9 bytes; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def cpu_memory_percent() -> float:
    """Returns the machine's used memory in percent, without the page cache; 0 if the system does not report it."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available, total = (float(lines[key].split()[0]) for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError, IndexError):
        return 0.0
    return 100.0 * (1 - available / total) if total else 0.0
