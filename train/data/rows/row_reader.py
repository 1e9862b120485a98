"""Copies rows of open shards into a batch: ``Rows`` says which rows, ``StridedRows`` is the plain way to copy them.

Shape letters: N samples, K samples out of N, T rows of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.data.rows.shard_table import OpenShard, ShardTable

__all__ = ["WIDE_BYTES", "AnyRows", "PickedRows", "RowReader", "Rows", "StridedRows"]

WIDE_BYTES = 1 << 15  # windows at least this wide are copied one by one: the cost of Python is then negligible
_FEW = 10  # up to so many samples of a shard, on average, copying one by one is as fast as indexing


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
    def ahead(self) -> NDArray[np.int64]:
        """For the samples in ``apart``: how many rows after ``first`` each row to read lies, (K, T)."""
        low, high = (self.low - self.first)[self.apart, None], (self.high - self.first)[self.apart, None]
        ahead: NDArray[np.int64] = np.minimum(np.maximum(self._wanted_ahead, low), high)
        return ahead

    @cached_property
    def is_pad(self) -> NDArray[np.bool_]:
        """Which rows (K, T) of the samples in ``apart`` are padding; the other samples have no padding."""
        is_pad: NDArray[np.bool_] = self.ahead != self._wanted_ahead
        return is_pad

    @cached_property
    def _wanted_ahead(self) -> NDArray[np.int64]:
        return np.arange(self.num_rows) * self.stride


@dataclass(frozen=True)
class PickedRows:
    """For each of N samples, any T rows of the array ``name`` in its shard: ``rows`` (N, T), counted within the shard.

    ``is_padding`` (N, T) marks rows that stand for one that the episode does not have. The properties are those of
    ``Rows``, so that both are read in the same way.
    """

    name: str
    shard: NDArray[np.int64]
    rows: NDArray[np.int64]
    is_padding: NDArray[np.bool_]

    @property
    def num_rows(self) -> int:
        """T."""
        return int(self.rows.shape[1])

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The lowest row that is read for each sample (N,)."""
        first: NDArray[np.int64] = self.rows.min(axis=1)
        return first

    @property
    def begin(self) -> NDArray[np.int64]:
        """See ``Rows``."""
        return self.first

    @cached_property
    def end(self) -> NDArray[np.int64]:
        """See ``Rows``."""
        end: NDArray[np.int64] = self.rows.max(axis=1)
        return end

    @cached_property
    def apart(self) -> NDArray[np.int64]:
        """All samples, since their rows may lie anywhere."""
        return np.arange(len(self.rows))

    @cached_property
    def ahead(self) -> NDArray[np.int64]:
        """See ``Rows``."""
        ahead: NDArray[np.int64] = self.rows - self.first[:, None]
        return ahead

    @property
    def is_pad(self) -> NDArray[np.bool_]:
        """See ``Rows``."""
        return self.is_padding


AnyRows = Rows | PickedRows


class RowReader(Protocol):
    """A way of copying rows; thread-safe."""

    def read(self, rows: AnyRows, out: NDArray[Any]) -> None:
        """Fill ``out`` ``(N, T, ...)``, C-contiguous and of the array's dtype. The caller holds a lease of the shards.

        Raises:
            DamageError: a row lies outside its array.
        """


class StridedRows:
    """The plain way: shard by shard, by indexing an array of each shard's overlapping windows."""

    def __init__(self, shards: ShardTable) -> None:
        self._shards = shards

    def read(self, rows: AnyRows, out: NDArray[Any]) -> None:
        """See ``RowReader``."""
        if not len(out):
            return
        by_shard = np.argsort(rows.shard, kind="stable")
        cuts = np.flatnonzero(np.diff(rows.shard[by_shard])) + 1
        place = np.full(len(out), -1)  # of each sample among those apart
        place[rows.apart] = np.arange(len(rows.apart))
        if out[0].nbytes >= WIDE_BYTES or len(cuts) * _FEW >= len(out):
            self._read_one_by_one(rows, out, place)
            return
        for samples in np.split(by_shard, cuts):
            begin = rows.begin[samples]
            shard = self._shard(rows, samples[0], begin.min(), rows.end[samples].max())
            is_whole = place[samples] < 0
            whole, apart = samples[is_whole], samples[~is_whole]
            if len(whole):
                out[whole] = shard.windows(rows.name, begin[is_whole], rows.num_rows)
            if len(apart):
                out[apart] = shard.picked(rows.name, rows.first[apart, None] + rows.ahead[place[apart]])

    def _read_one_by_one(self, rows: AnyRows, out: NDArray[Any], place: NDArray[np.int64]) -> None:
        spans = zip(rows.begin.tolist(), rows.end.tolist(), place.tolist(), strict=True)
        for sample, (begin, end, of_apart) in enumerate(spans):
            shard = self._shard(rows, sample, begin, end)
            if of_apart < 0:
                out[sample] = shard.rows(rows.name, begin, end + 1)
            else:
                out[sample] = shard.picked(rows.name, rows.first[sample] + rows.ahead[None, of_apart])[0]

    def _shard(self, rows: AnyRows, sample: int, begin: int, end: int) -> OpenShard:
        """The shard of a sample. It is checked that the shard has the rows from ``begin`` to ``end``."""
        number = int(rows.shard[sample])
        self._shards.require(rows.name, number, begin, end + 1)
        return self._shards.at(number)
