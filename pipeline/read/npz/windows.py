"""Lays overlapping windows of a sensor end to end: finds each window's new rows and their times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["expand_clock", "new_rows"]

_TELLING_ROWS = 4  # fewer equal rows may be a coincidence


def new_rows(arrays: list[NDArray[Any]], stamps_s: NDArray[np.float64], rate_hz: float) -> NDArray[np.int64]:
    """Returns how many rows at the end of each window are new, ``(N,)``; all rows of the first window are new.

    A window repeats rows if its first rows are exactly the last rows of the window before. If only few rows repeat, or
    several overlaps are possible (a stuck sensor, a pure tone), the overlap nearest to the one expected from the clock
    and ``rate_hz`` is used.

    Args:
        arrays: windows of the same rows, each ``(N, W, columns)``.
        stamps_s: the time of each window, ``(N,)``.
        rate_hz: rows per second.
    """
    num_windows, width = arrays[0].shape[:2]
    # Compared as bytes, so that NaN equals NaN, and -0 differs from 0.
    bits = [np.ascontiguousarray(each).reshape(num_windows, width, -1).view(np.uint8) for each in arrays]
    fresh = np.full(num_windows, width, dtype=np.int64)
    for i in range(1, num_windows):
        shifts = [shift for shift in _shifts(bits[0], i) if all(_repeats(each, i, shift) for each in bits)]
        telling = [shift for shift in shifts if any(_tells(each[i, : width - shift]) for each in bits)]
        if len(telling) == 1:
            fresh[i] = telling[0]
        elif shifts:
            expected = (stamps_s[i] - stamps_s[i - 1]) * rate_hz
            fresh[i] = min([*shifts, width], key=lambda shift: abs(shift - expected))
    return fresh


def _shifts(bits: NDArray[np.uint8], i: int) -> list[int]:
    """Returns the rows of the window before that equal the first row of this window."""
    found: list[int] = np.flatnonzero((bits[i - 1] == bits[i, 0]).all(axis=1)).tolist()
    return found


def _repeats(bits: NDArray[np.uint8], i: int, shift: int) -> bool:
    return np.array_equal(bits[i - 1, shift:], bits[i, : bits.shape[1] - shift])


def _tells(repeated: NDArray[np.uint8]) -> bool:
    return len(repeated) >= _TELLING_ROWS and not (repeated == repeated[0]).all()


def expand_clock(stamps: NDArray[Any], fresh: NDArray[np.int64], rate_hz: float) -> NDArray[Any]:
    """Returns the time of every new row, ``(sum(fresh),)`` in the dtype of ``stamps``.

    A window's stamp is the time of its last row. The rows before lie 1 / ``rate_hz`` apart. If the first of them would
    then not come after the stamp of the window before, the rows are spread evenly between both stamps.
    """
    whole = stamps.dtype == np.int64
    times: list[NDArray[Any]] = []
    for i, count in enumerate(fresh.tolist()):
        before_s = np.arange(count - 1, -1, -1) / rate_hz
        ours = stamps[i] - (np.rint(before_s * 1e9).astype(np.int64) if whole else before_s)
        if i and count and ours[0] <= stamps[i - 1]:
            between = stamps[i] - stamps[i - 1]
            shares = np.arange(1, count + 1)
            # Integer nanoseconds, computed without a product that may not fit 64 bits.
            part = between // count * shares + between % count * shares // count if whole else between * shares / count
            ours = stamps[i - 1] + part
            ours[-1] = stamps[i]
        times.append(ours)
    return np.concatenate(times)
