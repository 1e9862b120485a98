"""Converts the two kinds of timestamps, int64 nanoseconds and float64 seconds, to seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["seconds", "seconds_between"]


def seconds(timestamp: NDArray[Any]) -> NDArray[np.float64]:
    """Returns timestamps as float64 seconds. int64 timestamps are nanoseconds; float64 timestamps are not copied."""
    return timestamp / 1e9 if timestamp.dtype == np.int64 else timestamp.astype(np.float64, copy=False)


def seconds_between(timestamp: NDArray[Any], first: int, last: int) -> float:
    """Returns the seconds from row ``first`` to row ``last``. Subtracts before it converts, so no digit is lost."""
    difference = timestamp[last] - timestamp[first]
    return float(difference / 1e9 if timestamp.dtype == np.int64 else difference)
