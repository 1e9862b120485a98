"""Measures rates side by side: all rates in turns, so that a ratio is the median of the turns' own ratios.

A busy machine then slows both sides of a ratio alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

__all__ = ["Line", "Rates", "Settings", "best_of", "forever", "line", "measure", "memcpy", "nbytes", "warm_rate"]

Line = dict[str, Any]
Rates = dict[str, list[float]]
COPY_BYTES = 400_000_000  # larger than any CPU's cache


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``folder`` holds the data, ``scale`` is its fraction of full size, ``seconds`` the length of a measurement."""

    folder: Path
    scale: float
    repeat: int
    seconds: float

    @property
    def tiny(self) -> bool:
        """True if the run only checks that the benchmark works."""
        return self.scale < 0.02


def batches_a_second(batches: Iterator[Any], seconds: float, *, skip: int = 0) -> float:
    """Return the batches per second, measured for about ``seconds``.

    ``skip`` batches are taken first: they were prepared while others were measured.
    """
    for _ in range(skip):
        next(batches)
    count = 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < seconds or not count:
        next(batches)
        count += 1
    return count / took


def warm_rate(
    batches: Iterator[Any], num_samples: int, seconds: float, *, warm_s: float | None = None, skip: int = 0
) -> Callable[[], float]:
    """Return a function that measures samples per second of batches. One-time costs are paid here, in ``warm_s``."""
    batches_a_second(batches, seconds if warm_s is None else warm_s)
    return lambda: num_samples * batches_a_second(batches, seconds, skip=skip)


def measure(measures: dict[str, Callable[[], float]], repeat: int) -> Rates:
    """Call each measure in turn, ``repeat`` times over."""
    rates: Rates = {name: [] for name in measures}
    for _ in range(repeat):
        for name, one in measures.items():
            rates[name].append(one())
    return rates


def best_of(candidates: dict[str, Callable[[], float]], repeat: int = 3) -> tuple[str, dict[str, float]]:
    """Return the name of the fastest candidate, and the median rate of each. The fastest becomes the baseline."""
    rates = {name: statistics.median(values) for name, values in measure(candidates, repeat).items()}
    return max(rates, key=lambda name: rates[name]), rates


def line(rates: Rates, ours: str, baseline: str, target: float, *, scale: float = 1.0) -> Line:
    """Compare two of the rates in a result line. ``scale`` converts the baseline into our unit."""
    ratios = [a / (b * scale) for a, b in zip(rates[ours], rates[baseline], strict=True)]
    ratio = statistics.median(ratios)
    return {
        "ours": statistics.median(rates[ours]),
        "baseline": statistics.median(rates[baseline]) * scale,
        "ratio": ratio,
        "ratios": [round(r, 3) for r in ratios],
        "target": target,
        "met": ratio >= target,
    }


def memcpy(settings: Settings, *, threads: int = 1) -> Callable[[], float]:
    """Return a function that measures the bytes per second of ``np.copyto`` between two buffers in memory."""
    num_bytes = COPY_BYTES // 400 if settings.tiny else COPY_BYTES
    source, target = np.ones((2, num_bytes), dtype=np.uint8)  # written once, so that every page is allocated
    edges = [num_bytes * i // threads for i in range(threads + 1)]
    spans = [slice(a, b) for a, b in pairwise(edges)]

    def once(pool: ThreadPoolExecutor | None) -> None:
        jobs = [partial(np.copyto, target[span], source[span]) for span in spans]
        if pool is None:
            jobs[0]()
        else:
            list(pool.map(lambda job: job(), jobs))

    def rate() -> float:
        count = 0
        pool = ThreadPoolExecutor(threads) if threads > 1 else None
        started = time.perf_counter()
        while (took := time.perf_counter() - started) < settings.seconds or not count:
            once(pool)
            count += 1
        if pool is not None:
            pool.shutdown()
        return count * num_bytes / took

    return rate


def nbytes(batch: dict[str, Any]) -> int:
    """Return the bytes of a batch's tensors."""
    return sum(value.numel() * value.element_size() for value in batch.values() if isinstance(value, torch.Tensor))


def forever(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches epoch after epoch, with the same workers."""
    while True:
        yield from loader
