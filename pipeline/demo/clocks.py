"""Simulates the recorders' clocks: nearly regular, sometimes late, never backwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ticks", "transport"]

Floats = NDArray[np.float64]

LATE_SHARE = 0.01
LATE_PERIODS = (0.2, 0.6)  # how many periods a late tick is late; the next tick is on time again


def ticks(start_s: float, end_s: float, rate_hz: float, jitter_s: float, rng: np.random.Generator) -> Floats:
    """Draw times from ``start_s`` up to ``end_s``, strictly increasing.

    Args:
        start_s: time of the first tick, before jitter.
        end_s: upper limit of the nominal ticks.
        rate_hz: ticks per second.
        jitter_s: standard deviation of the jitter, which is clipped at three of them; that must be under 0.05 periods.
        rng: generator of the jitter.
    """
    nominal = start_s + np.arange(int((end_s - start_s) * rate_hz) + 1) / rate_hz
    jitter = np.clip(rng.normal(0, jitter_s, len(nominal)), -3 * jitter_s, 3 * jitter_s)
    late = rng.random(len(nominal)) < LATE_SHARE
    return nominal + jitter + late * rng.uniform(*LATE_PERIODS, len(nominal)) / rate_hz


def transport(time_s: Floats, delay_s: float, jitter_s: float, rng: np.random.Generator) -> Floats:
    """Return the times at which messages of ``time_s`` arrive. No message overtakes an earlier one."""
    delay = delay_s + np.clip(rng.normal(0, jitter_s, len(time_s)), -delay_s / 2, 3 * jitter_s)
    return np.maximum.accumulate(time_s + delay)
