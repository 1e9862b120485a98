"""Converts the two kinds of timestamps, int64 nanoseconds and float64 seconds, to seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["seconds", "seconds_between"]

_EXACT = 1 << 53  # float64 has all whole numbers up to this one


def seconds(timestamp: NDArray[Any]) -> NDArray[np.float64]:
    """Returns timestamps as float64 seconds. int64 timestamps are nanoseconds; float64 timestamps are not copied.

    The result is the float64 nearest to the timestamp, so a clock in nanoseconds and one in seconds agree on a time.
    """
    if timestamp.dtype != np.int64:
        return timestamp.astype(np.float64, copy=False)
    in_seconds: NDArray[np.float64] = timestamp / 1e9
    is_rounded = np.abs(timestamp) > _EXACT  # as float64 nanoseconds already, before the division
    if is_rounded.any():
        whole, rest = np.divmod(timestamp[is_rounded], 1_000_000_000)
        in_seconds[is_rounded] = whole + rest / 1e9
    return in_seconds


def seconds_between(timestamp: NDArray[Any], first: int, last: int) -> float:
    """Returns the seconds from row ``first`` to row ``last``. Subtracts before it converts, so no digit is lost."""
    difference = timestamp[last] - timestamp[first]
    return float(difference / 1e9 if timestamp.dtype == np.int64 else difference)
