"""Where the arrays of each shard lie in memory; shards are opened as they are asked for.

Addresses are good while their shards are leased: until then every array that has one is held. Where more would have to
be unpacked for a lease than is worth waiting for, its rows are read out of the compressed shards, and the shards
are unpacked meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.file_map import most_maps
from vlapipe.pipeline.shards.mapped.packed_rows import SampleRows
from vlapipe.schemas.errors import DamageError
from vlapipe.train.sources import Sources
from vlapipe.train.unpacking import Unpacking
from vlapipe.train.windows_of_memory import address_of

__all__ = ["OpenShards"]

_SHARE_OF_MAPS = 4  # a shard takes two maps, its own and that of what was unpacked; and there may be a second loader
WAIT_BYTES = 64_000_000  # that a lease waits for until they are unpacked: a fifth of a second on two cores


class OpenShards:
    """A table of addresses, one column an array and one row a shard; safe to use from several threads."""

    def __init__(
        self, sources: Sources, most: int | None = None, may_unpack: Callable[[], bool] = lambda: True
    ) -> None:
        """Keep at most ``most`` shards open that nobody reads, those that were read last; ``None`` keeps all.

        Where that would take more maps than this process should have, fewer are kept: shards are then opened again and
        again, which is slower. ``may_unpack`` says whether there may be a thread that unpacks; otherwise leases wait.
        """
        affordable = most_maps() // _SHARE_OF_MAPS
        if sources.num_shards > affordable:
            most = affordable if most is None else min(most, affordable)
        self._sources, self._most, self._may_unpack = sources, most, may_unpack
        self._lock, self._entering = threading.Lock(), threading.Lock()
        self._readers: dict[int, int] = {}  # of each open shard, if there is a limit; the last one read is the last
        self._arrays: list[dict[str, NDArray[Any]] | None] = [None] * sources.num_shards
        self._is_open = np.zeros(sources.num_shards, dtype=bool)
        self._addresses: dict[str, NDArray[np.int64]] = {}
        self._num_rows: dict[str, NDArray[np.int64]] = {}
        self._row_bytes: dict[str, NDArray[np.int64]] = {}
        self._packed: dict[int, _Packed] = {}  # those among the open ones that are not unpacked yet
        self._read = threading.local()  # rows that the thread's lease had read
        self._unpacking = Unpacking(self._unpack)

    @property
    def is_unpacking(self) -> bool:
        """Whether shards are unpacked beside the reading, which is slower until then."""
        return self._unpacking.is_busy

    @contextlib.contextmanager
    def lease(self, shards: NDArray[np.int64]) -> Iterator[None]:
        """Have shards open while the block lasts, for this thread.

        Raises:
            DamageError: a shard is missing, cut short or altered.
        """
        self._read.rows = []
        try:
            if self._most is None:
                self._open(shards)
                yield
            else:
                with self._counted(set(shards.tolist()), self._most):
                    self._open(shards)
                    yield
        finally:
            self._read.rows = []
        if self._packed:  # only now, or it would be in the way of the first batch
            self._unpacking.ask(self._packed.keys() & set(shards.tolist()))

    @contextlib.contextmanager
    def _counted(self, leased: set[int], most: int) -> Iterator[None]:
        with self._lock:
            for shard in leased:
                self._readers[shard] = self._readers.pop(shard, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                for shard in leased:
                    self._readers[shard] -= 1
                self._close_some(most)

    def _close_some(self, most: int) -> None:
        excess = len(self._readers) - most
        if excess <= 0:
            return
        for shard in list(islice((shard for shard, count in self._readers.items() if not count), excess)):
            del self._readers[shard]
            with self._entering:
                self._is_open[shard] = False
                self._arrays[shard] = None
                self._packed.pop(shard, None)

    def _open(self, shards: NDArray[np.int64]) -> None:
        missing = set(shards[~self._is_open[shards]].tolist())
        waits = sum(map(self._sources.unpacked_bytes, missing)) <= WAIT_BYTES or not self._may_unpack()
        for shard in missing:
            rows = None if waits else self._sources.sample_rows(shard)
            if rows is None:
                self._enter(shard, self._sources.sample_arrays(shard))  # by several threads at once
            else:
                self._enter_packed(shard, _Packed(rows, self._sources.sample_names(shard)))

    def _unpack(self, shard: int) -> None:
        arrays = self._sources.sample_arrays(shard)
        if shard in self._packed:
            self._enter(shard, arrays)

    def _enter(self, shard: int, arrays: dict[str, NDArray[Any]]) -> None:
        with self._entering:
            if not self._is_open[shard] or shard in self._packed:
                for name, array in arrays.items():
                    self._enter_array(shard, name, len(array), _row_bytes(array), address_of(array))
                self._arrays[shard] = arrays
                # Last: who sees these reads the rest.
                self._packed.pop(shard, None)
                self._is_open[shard] = True

    def _enter_packed(self, shard: int, packed: _Packed) -> None:
        with self._entering:
            if not self._is_open[shard]:
                for name in packed.names:
                    none = packed.read(name, 0, 0)
                    self._enter_array(shard, name, packed.num_rows(name), _row_bytes(none), 0)
                self._packed[shard] = packed
                self._is_open[shard] = True

    def _enter_array(self, shard: int, name: str, num_rows: int, row_bytes: int, address: int) -> None:
        columns = (self._row_bytes, row_bytes), (self._num_rows, num_rows), (self._addresses, address)
        for column, value in columns:
            column.setdefault(name, np.zeros(len(self._is_open), dtype=np.int64))[shard] = value

    def row_bytes(self, name: str, shards: NDArray[np.int64]) -> int:
        """Bytes of one row of an array in open shards, of which all have the same."""
        return int(self._row_bytes[name][shards[0]])

    def addresses(
        self, name: str, shard: NDArray[np.int64], row: NDArray[np.int64], last: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Where rows begin in memory; rows up to ``last`` are then read from there on.

        Args:
            name: of the array.
            shard: of each row, open; broadcasts with ``row``.
            row: within the shard.
            last: the last row that will be read; ``row`` if left out.

        Raises:
            DamageError: a row lies outside its array.
        """
        last = row if last is None else last
        outside = (row < 0) | (last >= self._num_rows[name][shard])
        if outside.any():
            raise self._too_short(name, int(np.broadcast_to(shard, outside.shape)[outside][0]))
        packed = self._packed.copy()  # before the addresses: those of shards unpacked meanwhile are then good
        addresses: NDArray[np.int64] = self._addresses[name][shard] + row * self._row_bytes[name][shard]
        if packed:
            self._read_packed(packed, name, shard, row, last, addresses)
        return addresses

    def _read_packed(
        self,
        packed: dict[int, _Packed],
        name: str,
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        last: NDArray[np.int64],
        addresses: NDArray[np.int64],
    ) -> None:
        """Put in the addresses of those that must be read first; they are held until the lease ends."""
        of_each = np.broadcast_to(shard, addresses.shape)
        for at in np.argwhere(np.isin(of_each, list(packed))).tolist():
            place = tuple(at)
            rows = packed[int(of_each[place])].read(name, int(row[place]), int(last[place]) + 1)
            self._read.rows.append(rows)
            addresses[place] = address_of(rows)

    def has(self, name: str) -> bool:
        """Whether the shards that have been opened have an array of this name."""
        return name in self._addresses

    def array(self, name: str, shard: int) -> NDArray[Any]:
        """An array of an open shard."""
        return self.rows(name, shard, 0, int(self._num_rows[name][shard]))

    def rows(self, name: str, shard: int, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop`` of an array of an open shard.

        Raises:
            DamageError: it has fewer.
        """
        if start < 0 or stop > self._num_rows[name][shard]:
            raise self._too_short(name, shard)
        packed = self._packed.get(shard)
        if packed is not None:
            return packed.read(name, start, stop)
        arrays = self._arrays[shard]
        assert arrays is not None
        return arrays[name][start:stop]

    def _too_short(self, name: str, shard: int) -> DamageError:
        file = self._sources.shard_file(shard)
        return DamageError(f"{file}: {name}: has fewer rows than its episodes", "ingest again")


class _Packed:
    """A compressed shard under the names of ``Sources.sample_names``."""

    def __init__(self, rows: SampleRows, names: dict[str, str]) -> None:
        self._rows, self.names = rows, names

    def num_rows(self, name: str) -> int:
        return self._rows.num_rows(self.names[name])

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return self._rows.read(self.names[name], start, stop)


def _row_bytes(array: NDArray[Any]) -> int:
    return array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=int))
