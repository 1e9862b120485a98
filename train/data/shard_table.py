"""The shards that samples are read from: opened as they are asked for, and held while a batch is made of them.

An open shard is mapped, or packed: the rows of a packed one are decoded as they are asked for. Both states have the
same methods, so that whoever reads rows need not know the state. If more would have to be unpacked for a batch than
is worth waiting for, its rows are read out of the compressed shards, and the shards are unpacked meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.file_maps import most_maps
from vlapipe.pipeline.shards.mapped.packed_rows import PackedRows
from vlapipe.schemas.errors import DamageError
from vlapipe.train.data.background_unpacking import Unpacking
from vlapipe.train.data.dataset_group import Sources

__all__ = ["MappedShard", "OpenShard", "PackedShard", "ShardTable"]

_SHARE_OF_MAPS = 4  # a shard takes two maps, its own and that of what was unpacked; and there may be a second loader
WAIT_BYTES = 64_000_000  # that a lease waits for until they are unpacked: a fifth of a second on two cores


class ShardTable:
    """Open shards by number, each mapped or still packed; safe to use from several threads."""

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
        self._shards: list[OpenShard | None] = [None] * sources.num_shards
        self._is_open = np.zeros(sources.num_shards, dtype=bool)
        self._packed: set[int] = set()  # those among the open ones that are not unpacked yet
        self._watchers: list[Callable[[int, OpenShard | None], None]] = []
        self._unpacking = Unpacking(self._unpack)

    @property
    def num_shards(self) -> int:
        """Open or not."""
        return len(self._shards)

    def watch(self, change: Callable[[int, OpenShard | None], None]) -> None:
        """Have ``change`` called with a shard's number when it is mapped, packed or (with ``None``) closed from now on.

        No shard is open yet. A mapped shard stays as it is while it is leased.
        """
        assert not self._is_open.any()
        self._watchers.append(change)

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
        if self._most is None:
            self._open(shards)
            yield
        else:
            with self._counted(set(shards.tolist()), self._most):
                self._open(shards)
                yield
        if self._packed:  # only now, or it would be in the way of the first batch
            self._unpacking.ask(self._packed & set(shards.tolist()))

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
                self._packed.discard(shard)
                self._set(shard, None)

    def _open(self, shards: NDArray[np.int64]) -> None:
        missing = set(shards[~self._is_open[shards]].tolist())
        waits = sum(map(self._sources.unpacked_bytes, missing)) <= WAIT_BYTES or not self._may_unpack()
        for shard in missing:
            rows = None if waits else self._sources.sample_rows(shard)
            if rows is None:
                self._enter(shard, MappedShard(self._sources.sample_arrays(shard)))  # by several threads at once
            else:
                self._enter(shard, PackedShard(rows, self._sources.sample_names(shard)))

    def _enter(self, number: int, shard: OpenShard) -> None:
        with self._entering:
            if not self._is_open[number]:
                self._set(number, shard)
                if isinstance(shard, PackedShard):
                    self._packed.add(number)
                self._is_open[number] = True  # last: who sees this reads the rest

    def _unpack(self, number: int) -> None:
        shard = MappedShard(self._sources.sample_arrays(number))
        with self._entering:
            if number in self._packed:
                self._set(number, shard)
                self._packed.discard(number)

    def _set(self, number: int, shard: OpenShard | None) -> None:
        self._shards[number] = shard
        for change in self._watchers:
            change(number, shard)

    def at(self, number: int) -> OpenShard:
        """An open shard."""
        shard = self._shards[number]
        assert shard is not None
        return shard

    def rows(self, name: str, shard: int, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop`` of an array of an open shard.

        Raises:
            DamageError: it has fewer.
        """
        self.require(name, shard, start, stop)
        return self.at(shard).rows(name, start, stop)

    def require(self, name: str, shard: int, start: int, stop: int) -> None:
        """Refuse rows that an array of an open shard does not have.

        Raises:
            DamageError: it has fewer.
        """
        if start < 0 or stop > self.at(shard).num_rows(name):
            file = self._sources.shard_file(shard)
            raise DamageError(f"{file}: {name}: has fewer rows than its episodes", "ingest again")


class MappedShard:
    """The arrays of ``Sources.sample_arrays``, C-contiguous and read-only."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def num_rows(self, name: str) -> int:
        """Of the whole array."""
        return len(self.arrays[name])

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop``, on the map."""
        return self.arrays[name][start:stop]

    def windows(self, name: str, first: NDArray[np.int64], num_rows: int) -> NDArray[Any]:
        """A copy of so many rows from each first one ``(K,)`` on, ``(K, num_rows, ...)``."""
        array = self.arrays[name]
        # Element i is row i and those after it. NumPy checks that none of these overlapping windows leaves the array.
        windows: NDArray[Any] = np.ndarray(
            (len(array) - num_rows + 1, num_rows, *array.shape[1:]),
            array.dtype,
            array,
            strides=(array.strides[0], *array.strides),
        )
        return windows[first]

    def picked(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A copy of single rows ``(K, T)``, ``(K, T, ...)``."""
        picked: NDArray[Any] = self.arrays[name][rows]
        return picked


class PackedShard:
    """A compressed shard under the names of ``Sources.sample_names``."""

    def __init__(self, rows: PackedRows, names: Mapping[str, str]) -> None:
        self._rows, self._names = rows, names

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def num_rows(self, name: str) -> int:
        """Of the whole array."""
        return self._rows.num_rows(self._names[name])

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop``; of actions, within one episode."""
        return self._rows.read(self._names[name], start, stop)

    def windows(self, name: str, first: NDArray[np.int64], num_rows: int) -> NDArray[Any]:
        """As those of a mapped shard."""
        return np.stack([self.rows(name, start, start + num_rows) for start in first.tolist()])

    def picked(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """As those of a mapped shard; what lies between the first and the last of each K is decoded with them."""
        starts, stops = rows.min(axis=1).tolist(), (rows.max(axis=1) + 1).tolist()
        return np.stack(
            [
                self.rows(name, start, stop)[of_one - start]
                for start, stop, of_one in zip(starts, stops, rows, strict=True)
            ]
        )


OpenShard = MappedShard | PackedShard
