"""Keeps the newest rows of one signal, and lays them out as the window that a policy was trained on.

Shape letters: T rows of a window, K rows given at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["History"]


class History:
    """Rows with their times. Memory is taken once, for as many rows as the window's time needs."""

    def __init__(self, num_rows: int, shape: tuple[int, ...], dtype: Any, times_s: NDArray[np.float64] | None) -> None:
        """Begin without a row.

        Args:
            num_rows: T.
            shape: of one row.
            dtype: of the rows.
            times_s: the times of the window's rows from the newest row given, ascending; None takes the last T rows.
        """
        self._num_rows, self._wanted = num_rows, times_s
        self._is_plain = times_s is None or (num_rows == 1 and times_s[-1] == 0)
        spacing = 0.0 if times_s is None or num_rows == 1 else float(np.diff(times_s).min())
        self._slack_s = spacing / 2
        self._rows = np.zeros((num_rows if self._is_plain else 2 * num_rows + 2, *shape), dtype=dtype)
        self._times = np.zeros(len(self._rows))
        self._start = self._stop = 0

    def __len__(self) -> int:
        """Number of rows that are kept."""
        return self._stop - self._start

    def clear(self) -> None:
        """Forget all rows."""
        self._start = self._stop = 0

    def place(self, time_s: float) -> NDArray[Any]:
        """Returns the memory ``(1, ...)`` of a new newest row, to be written. ``time_s`` does not go back."""
        if self._stop == len(self._rows):
            self._make_room(time_s)
        row: NDArray[Any] = self._rows[self._stop : self._stop + 1]
        self._times[self._stop] = time_s
        self._stop += 1
        return row

    def window(self, out: NDArray[Any], is_pad: NDArray[np.bool_]) -> None:
        """Fill ``out`` ``(T, ...)`` and mark in ``is_pad`` ``(T,)`` what comes before the first row.

        A row that is not there holds the oldest row. Each other one is the row nearest to its time.
        """
        count = len(self)
        if self._is_plain:
            missing = max(0, self._num_rows - count)
            is_pad[:missing], is_pad[missing:] = True, False
            if count:
                out[missing:] = self._rows[self._stop - (self._num_rows - missing) : self._stop]
                out[:missing] = self._rows[self._start]
            return
        assert self._wanted is not None
        if not count:
            is_pad[:] = True
            return
        times = self._times[self._start : self._stop]
        wanted = times[-1] + self._wanted
        after = np.searchsorted(times, wanted).clip(1, max(1, count - 1)) if count > 1 else np.zeros(len(wanted), int)
        nearest = after - (wanted - times[after - 1] <= times[after] - wanted) if count > 1 else after
        np.take(self._rows, self._start + nearest, axis=0, out=out, mode="clip")
        np.less(wanted, times[0] - self._slack_s - 1e-9, out=is_pad)

    def _make_room(self, time_s: float) -> None:
        """Move the rows that a window can still need to the front; take more memory if they are too many."""
        if self._is_plain:
            first = self._stop - self._num_rows + 1
        else:
            assert self._wanted is not None
            oldest = time_s + self._wanted[0] - self._slack_s
            first = max(self._start, int(np.searchsorted(self._times[: self._stop], oldest)) - 1)
        kept = self._stop - max(first, 0)
        if kept > len(self._rows) // 2 and not self._is_plain:
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._times = np.concatenate([self._times, np.zeros_like(self._times)])
        first = max(first, 0)
        self._rows[:kept] = self._rows[first : self._stop]
        self._times[:kept] = self._times[first : self._stop]
        self._start, self._stop = 0, kept
