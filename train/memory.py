"""How full the GPU's and the machine's memory are; 0.0 where that cannot be known."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["cpu_memory_percent", "gpu_memory_gb"]

_MEMINFO = Path("/proc/meminfo")


def gpu_memory_gb(device: torch.device) -> float:
    """The most that this process has held on the GPU, in 1e9 bytes."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def cpu_memory_percent() -> float:
    """Share of the machine's memory that is in use, in percent; the page cache, which is given back, is not counted."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available, total = (float(lines[key].split()[0]) for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError, IndexError):
        return 0.0
    return 100.0 * (1 - available / total) if total else 0.0
