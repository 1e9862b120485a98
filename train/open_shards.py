"""Where the arrays of each shard lie in memory; shards are opened as they are asked for.

Addresses are good while their shards are leased: until then every array that has one is held.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.errors import DamageError
from vlapipe.train.sources import Sources
from vlapipe.train.windows_of_memory import address_of

__all__ = ["OpenShards"]


class OpenShards:
    """A table of addresses, one column an array and one row a shard; safe to use from several threads."""

    def __init__(self, sources: Sources, most: int | None = None) -> None:
        """Keep at most ``most`` shards open that nobody reads, those that were read last; ``None`` keeps all."""
        self._sources, self._most = sources, most
        self._lock, self._entering = threading.Lock(), threading.Lock()
        self._readers: dict[int, int] = {}  # of each open shard, if there is a limit; the last one read is the last
        self._arrays: list[dict[str, NDArray[Any]] | None] = [None] * sources.num_shards
        self._is_open = np.zeros(sources.num_shards, dtype=bool)
        self._addresses: dict[str, NDArray[np.int64]] = {}
        self._num_rows: dict[str, NDArray[np.int64]] = {}
        self._row_bytes: dict[str, NDArray[np.int64]] = {}

    @contextlib.contextmanager
    def lease(self, shards: NDArray[np.int64]) -> Iterator[None]:
        """Have shards open while the block lasts; unpacks what is compressed, once on this machine.

        Raises:
            DamageError: a shard is missing, cut short or altered.
        """
        if self._most is None:
            self._open(shards)
            yield
            return
        leased = set(shards.tolist())
        with self._lock:
            for shard in leased:
                self._readers[shard] = self._readers.pop(shard, 0) + 1
        try:
            self._open(shards)
            yield
        finally:
            with self._lock:
                for shard in leased:
                    self._readers[shard] -= 1
                self._close_some(self._most)

    def _close_some(self, most: int) -> None:
        unread = [shard for shard, count in self._readers.items() if not count]
        for shard in unread[: max(0, len(self._readers) - most)]:
            del self._readers[shard]
            self._is_open[shard] = False
            self._arrays[shard] = None

    def _open(self, shards: NDArray[np.int64]) -> None:
        for shard in set(shards[~self._is_open[shards]].tolist()):
            arrays = self._sources.sample_arrays(shard)  # by several threads at once, as it may have to be unpacked
            with self._entering:
                if not self._is_open[shard]:
                    for name, array in arrays.items():
                        self._enter(shard, name, array)
                    self._arrays[shard] = arrays
                    self._is_open[shard] = True  # last: who sees it reads the rest

    def _enter(self, shard: int, name: str, array: NDArray[Any]) -> None:
        row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=int))
        columns = (self._row_bytes, row_bytes), (self._num_rows, len(array)), (self._addresses, address_of(array))
        for column, value in columns:
            column.setdefault(name, np.zeros(len(self._is_open), dtype=np.int64))[shard] = value

    def row_bytes(self, name: str, shards: NDArray[np.int64]) -> int:
        """Bytes of one row of an array in open shards; 0 if they differ."""
        found = self._row_bytes[name][shards]
        return int(found[0]) if (found == found[0]).all() else 0

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
            file = self._sources.shard_file(int(np.broadcast_to(shard, outside.shape)[outside][0]))
            raise DamageError(f"{file}: {name}: has fewer rows than its episodes", "ingest again")
        addresses: NDArray[np.int64] = self._addresses[name][shard] + row * self._row_bytes[name][shard]
        return addresses

    def has(self, name: str) -> bool:
        """Whether the shards that have been opened have an array of this name."""
        return name in self._addresses

    def array(self, name: str, shard: int) -> NDArray[Any]:
        """An array of an open shard."""
        arrays = self._arrays[shard]
        assert arrays is not None
        return arrays[name]
