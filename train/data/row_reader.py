"""Copies rows of open shards into a batch: ``Rows`` says which rows, ``StridedRows`` is the plain way to copy them.

Shape letters: N samples, K samples out of N, T rows of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.data.shard_table import ShardTable

__all__ = ["WIDE_BYTES", "RowReader", "Rows", "StridedRows"]

WIDE_BYTES = 1 << 15  # windows at least this wide are copied one by one: the cost of Python is then negligible


@dataclass(frozen=True)
class Rows:
    """For each of N samples, T rows of the array ``name`` in its shard: ``first``, ``first + stride`` and so on.

    Rows before ``low`` or after ``high`` are padding: row ``low`` or ``high`` is read instead. ``low`` is at most
    ``high``. All arrays are (N,), and rows are counted within the shard.
    """

    name: str
    num_rows: int
    shard: NDArray[np.int64]
    first: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    stride: int = 1

    @classmethod
    def from_first(cls, name: str, num_rows: int, shard: NDArray[np.int64], first: NDArray[np.int64]) -> Rows:
        """Make ``Rows`` of ``num_rows`` rows from each ``first`` row on, without stride and padding."""
        return cls(name, num_rows, shard, first, first, first + (num_rows - 1))

    @cached_property
    def begin(self) -> NDArray[np.int64]:
        """The first row that is read for each sample (N,)."""
        return np.minimum(np.maximum(self.first, self.low), self.high)

    @cached_property
    def end(self) -> NDArray[np.int64]:
        """The last row that is read for each sample (N,)."""
        last = self.first + (self.num_rows - 1) * self.stride
        return np.minimum(np.maximum(last, self.low), self.high)

    @cached_property
    def apart(self) -> NDArray[np.int64]:
        """The samples (K,), ascending, whose T rows are not contiguous from ``first`` on: strided or padded ones."""
        if self.stride > 1 and self.num_rows > 1:
            return np.arange(len(self.first))
        return np.flatnonzero((self.begin != self.first) | (self.end != self.first + (self.num_rows - 1)))

    @cached_property
    def single(self) -> NDArray[np.int64]:
        """The rows (K, T) to read for the samples in ``apart``."""
        return np.minimum(np.maximum(self._wanted, self.low[self.apart, None]), self.high[self.apart, None])

    @cached_property
    def is_pad(self) -> NDArray[np.bool_]:
        """Which rows of ``single`` (K, T) are padding; samples that are not in ``apart`` have no padding."""
        is_pad: NDArray[np.bool_] = self.single != self._wanted
        return is_pad

    @cached_property
    def _wanted(self) -> NDArray[np.int64]:
        wanted: NDArray[np.int64] = self.first[self.apart, None] + np.arange(self.num_rows) * self.stride
        return wanted


class RowReader(Protocol):
    """A way of copying rows; thread-safe."""

    def read(self, rows: Rows, out: NDArray[Any]) -> None:
        """Fill ``out`` ``(N, T, ...)``, C-contiguous and of the array's dtype. The caller holds a lease of the shards.

        Raises:
            DamageError: a row lies outside its array.
        """


class StridedRows:
    """The plain way: shard by shard, by indexing an array of each shard's overlapping windows."""

    def __init__(self, shards: ShardTable) -> None:
        self._shards = shards

    def read(self, rows: Rows, out: NDArray[Any]) -> None:
        """See ``RowReader``."""
        place_apart = np.full(len(out), -1)
        place_apart[rows.apart] = np.arange(len(rows.apart))
        by_shard = np.argsort(rows.shard, kind="stable")
        for samples in np.split(by_shard, np.flatnonzero(np.diff(rows.shard[by_shard])) + 1):
            number = int(rows.shard[samples[0]])
            begin = rows.begin[samples]
            self._shards.require(rows.name, number, int(begin.min()), int(rows.end[samples].max()) + 1)
            shard = self._shards.at(number)
            place = place_apart[samples]
            is_whole = place < 0
            whole, begin, apart = samples[is_whole], begin[is_whole], samples[~is_whole]
            if out[0].nbytes >= WIDE_BYTES:
                for sample, start in zip(whole.tolist(), begin.tolist(), strict=True):
                    out[sample] = shard.rows(rows.name, start, start + rows.num_rows)
            elif len(whole):
                out[whole] = shard.windows(rows.name, begin, rows.num_rows)
            if len(apart):
                out[apart] = shard.picked(rows.name, rows.single[place[~is_whole]])
