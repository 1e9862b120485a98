"""Finds rows by time while a batch is made: the times of rows are gathered from the shards, and halved down to the row.

Shape letters: N samples, T times of a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.data.rows.row_reader import RowReader, Rows

__all__ = ["RowTimes"]

_NEAR = 8  # rows: clocks that tick evenly have the row within this distance of the place that the mean rate says


class RowTimes:
    """The times of one stream's rows, in seconds since the first anchor row of their episode."""

    def __init__(self, name: str, reader: RowReader) -> None:
        """Prepare to read. ``name`` is the array with the times: float64 ``(rows, 1)``."""
        self._name, self._reader = name, reader

    def at(self, shard: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the times of rows of the shard, both ``(M,)``."""
        times = np.empty((len(rows), 1, 1))
        self._reader.read(Rows.from_first(self._name, 1, shard, rows), times)
        return times[:, 0, 0]

    def last_at_or_before(
        self,
        wanted: NDArray[np.float64],
        shard: NDArray[np.int64],
        start: NDArray[np.int64],
        num_rows: NDArray[np.int64],
        guess: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Return the last row at or before each wanted time ``(N, T)``, counted within the episode; -1 if none.

        Args:
            wanted: seconds since the first anchor row, ``(N, T)``.
            shard: the shard of each sample ``(N,)``.
            start: the episode's first row in the shard ``(N,)``.
            num_rows: the episode's number of rows ``(N,)``, at least 1.
            guess: about where the row is ``(N, T)``; the result does not depend on it.
        """
        size = wanted.shape[1]
        times, most = wanted.reshape(-1), np.repeat(num_rows, size)
        of_shard, of_start = np.repeat(shard, size), np.repeat(start, size)
        place = np.clip(np.nan_to_num(guess.reshape(-1)), 0, most - 1).astype(np.int64)
        low, high = place - _NEAR - 1, place + _NEAR  # the row is at least low, and less than high
        low, high = np.maximum(low, -1), np.minimum(high, most)
        is_low = low >= 0
        is_low[is_low] = self.at(of_shard[is_low], (of_start + low)[is_low]) > times[is_low]
        is_high = high < most
        is_high[is_high] = self.at(of_shard[is_high], (of_start + high)[is_high]) <= times[is_high]
        low, high = np.where(is_low, -1, low), np.where(is_high, most, high)
        while True:
            is_open = high - low > 1
            if not is_open.any():
                return low.reshape(wanted.shape)
            middle = (low + high) >> 1
            is_before = np.zeros(len(times), dtype=bool)
            is_before[is_open] = self.at(of_shard[is_open], (of_start + middle)[is_open]) <= times[is_open]
            low, high = np.where(is_before, middle, low), np.where(is_open & ~is_before, middle, high)

    def nearest(
        self,
        wanted: NDArray[np.float64],
        shard: NDArray[np.int64],
        start: NDArray[np.int64],
        num_rows: NDArray[np.int64],
        guess: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the row nearest to each wanted time (the earlier one of two), and how far away it is in seconds.

        The arguments are those of ``last_at_or_before``; both results are ``(N, T)``.
        """
        last = self.last_at_or_before(wanted, shard, start, num_rows, guess)
        before, after = np.maximum(last, 0), np.minimum(last + 1, num_rows[:, None] - 1)
        size = wanted.shape[1]
        of_shard, of_start = np.repeat(shard, size), np.repeat(start, size)

        def away(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            found = self.at(of_shard, of_start + rows.reshape(-1)).reshape(wanted.shape)
            return np.abs(found - wanted)

        behind, ahead = away(before), away(after)
        is_behind = behind <= ahead
        return np.where(is_behind, before, after), np.where(is_behind, behind, ahead)
