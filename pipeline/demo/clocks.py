"""The recorders' clocks: nearly regular, sometimes late, never backwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ticks", "transport"]

Floats = NDArray[np.float64]

LATE_SHARE = 0.01
LATE_PERIODS = (0.2, 0.6)  # how late a late row is; the next one is on time again


def ticks(start_s: float, end_s: float, rate_hz: float, jitter_s: float, rng: np.random.Generator) -> Floats:
    """Times from ``start_s`` up to ``end_s``, strictly increasing.

    Args:
        start_s: the first tick, before its jitter.
        end_s: no nominal tick lies after it.
        rate_hz: ticks a second.
        jitter_s: standard deviation; cut off at three of them, which must be under 0.05 periods.
        rng: where the jitter comes from.
    """
    nominal = start_s + np.arange(int((end_s - start_s) * rate_hz) + 1) / rate_hz
    jitter = np.clip(rng.normal(0, jitter_s, len(nominal)), -3 * jitter_s, 3 * jitter_s)
    late = rng.random(len(nominal)) < LATE_SHARE
    return nominal + jitter + late * rng.uniform(*LATE_PERIODS, len(nominal)) / rate_hz


def transport(time_s: Floats, delay_s: float, jitter_s: float, rng: np.random.Generator) -> Floats:
    """When what happened at ``time_s`` reaches the next place; later messages never overtake."""
    delay = delay_s + np.clip(rng.normal(0, jitter_s, len(time_s)), -delay_s / 2, 3 * jitter_s)
    return np.maximum.accumulate(time_s + delay)
