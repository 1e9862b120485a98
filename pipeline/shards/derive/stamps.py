"""What the two kinds of clock, int64 nanoseconds and float64 seconds, are in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["seconds", "seconds_between"]


def seconds(timestamp: NDArray[Any]) -> NDArray[np.float64]:
    """The clock as float64 seconds (int64 is taken as nanoseconds)."""
    return timestamp / 1e9 if timestamp.dtype == np.int64 else timestamp.astype(np.float64, copy=False)


def seconds_between(timestamp: NDArray[Any], first: int, last: int) -> float:
    """Time from one row to another in seconds, subtracted before it is converted, so that no digit is lost."""
    difference = timestamp[last] - timestamp[first]
    return float(difference / 1e9 if timestamp.dtype == np.int64 else difference)
