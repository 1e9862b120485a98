"""Opens the shards that samples are read from, and keeps them open while a batch is made of them.

An open shard is mapped or packed. The rows of a packed shard are decoded when they are asked for. Both states have the
same methods, so a reader of rows need not know the state. If a batch would have to wait for too much unpacking, its
rows are read out of the compressed shards, and a background thread unpacks the shards.
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
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.rows.background_unpacking import Unpacking

__all__ = ["MappedShard", "OpenShard", "PackedShard", "ShardTable"]

_SHARE_OF_MAPS = 4  # a shard takes two maps, of its file and of its unpacked file; and there may be a second loader
WAIT_BYTES = 64_000_000  # most bytes that a lease waits to have unpacked: 0.2 s on two cores


class ShardTable:
    """Open shards by number, each mapped or still packed; thread-safe."""

    def __init__(
        self, sources: Sources, most: int | None = None, may_unpack: Callable[[], bool] = lambda: True
    ) -> None:
        """Open no shard yet.

        Args:
            sources: the datasets, whose shards are numbered through.
            most: limit on idle open shards (least recently leased are closed); ``None`` keeps all open. The limit is
                lower if the shards would take more maps than this process should have. Closed shards are opened again
                when they are leased, which is slower.
            may_unpack: says whether a background thread may unpack shards; if not, leases wait for the unpacking.
        """
        affordable = most_maps() // _SHARE_OF_MAPS
        if sources.num_shards > affordable:
            most = affordable if most is None else min(most, affordable)
        self._sources, self._most, self._may_unpack = sources, most, may_unpack
        self._lock, self._entering = threading.Lock(), threading.Lock()
        self._readers: dict[int, int] = {}  # leases of each open shard, if there is a limit; least recent first
        self._shards: list[OpenShard | None] = [None] * sources.num_shards
        self._is_open = np.zeros(sources.num_shards, dtype=bool)
        self._packed: set[int] = set()  # open shards that are not unpacked yet
        self._watchers: list[Callable[[int, OpenShard | None], None]] = []
        self._unpacking = Unpacking(self._unpack)

    @property
    def num_shards(self) -> int:
        """Number of all shards, open or not."""
        return len(self._shards)

    def watch(self, change: Callable[[int, OpenShard | None], None]) -> None:
        """Call ``change(number, shard)`` each time a shard is mapped, packed or (with ``None``) closed from now on.

        Must be called before any shard is open. A mapped shard does not change while it is leased.
        """
        assert not self._is_open.any()
        self._watchers.append(change)

    @property
    def is_unpacking(self) -> bool:
        """Whether a background thread is unpacking shards; reading is slower meanwhile."""
        return self._unpacking.is_busy

    @contextlib.contextmanager
    def lease(self, shards: NDArray[np.int64]) -> Iterator[None]:
        """Keep shards open for this thread while the ``with`` block runs.

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
        if self._packed:  # after the block: unpacking would delay the first batch
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
                self._enter(shard, MappedShard(self._sources.sample_arrays(shard)))  # several threads may do it at once
            else:
                self._enter(shard, PackedShard(rows, self._sources.sample_names(shard)))

    def _enter(self, number: int, shard: OpenShard) -> None:
        with self._entering:
            if not self._is_open[number]:
                self._set(number, shard)
                if isinstance(shard, PackedShard):
                    self._packed.add(number)
                self._is_open[number] = True  # last: a thread that sees it finds the shard set

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
        """The shard of this number, which must be open."""
        shard = self._shards[number]
        assert shard is not None
        return shard

    def rows(self, name: str, shard: int, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop`` of an array of an open shard.

        Raises:
            DamageError: the array has fewer rows.
        """
        self.require(name, shard, start, stop)
        return self.at(shard).rows(name, start, stop)

    def require(self, name: str, shard: int, start: int, stop: int) -> None:
        """Refuse rows that an array of an open shard does not have.

        Raises:
            DamageError: the array has fewer rows.
        """
        if start < 0 or stop > self.at(shard).num_rows(name):
            file = self._sources.shard_file(shard)
            raise DamageError(f"{file}: {name}: has fewer rows than its episodes", "ingest again")


class MappedShard:
    """A shard whose arrays are memory-mapped: those of ``Sources.sample_arrays``, C-contiguous and read-only."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def num_rows(self, name: str) -> int:
        """Number of rows of the whole array."""
        return len(self.arrays[name])

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop``, as a view of the memory map."""
        return self.arrays[name][start:stop]

    def windows(self, name: str, first: NDArray[np.int64], num_rows: int) -> NDArray[Any]:
        """Copy ``num_rows`` contiguous rows from each row of ``first`` ``(K,)`` on: ``(K, num_rows, ...)``."""
        array = self.arrays[name]
        # Element i is the window that begins at row i. NumPy checks that none of the overlapping windows leaves the
        # array.
        windows: NDArray[Any] = np.ndarray(
            (len(array) - num_rows + 1, num_rows, *array.shape[1:]),
            array.dtype,
            array,
            strides=(array.strides[0], *array.strides),
        )
        return windows[first]

    def picked(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy single rows, given by number ``(K, T)``: ``(K, T, ...)``."""
        picked: NDArray[Any] = self.arrays[name][rows]
        return picked


class PackedShard:
    """A compressed shard, whose rows are decoded when they are read; array names as in ``Sources.sample_names``."""

    def __init__(self, rows: PackedRows, names: Mapping[str, str]) -> None:
        self._rows, self._names = rows, names

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def num_rows(self, name: str) -> int:
        """Number of rows of the whole array."""
        return self._rows.num_rows(self._names[name])

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop``, decoded; rows of actions must lie within one episode."""
        return self._rows.read(self._names[name], start, stop)

    def windows(self, name: str, first: NDArray[np.int64], num_rows: int) -> NDArray[Any]:
        """See ``MappedShard.windows``."""
        return np.stack([self.rows(name, start, start + num_rows) for start in first.tolist()])

    def picked(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """See ``MappedShard.picked``. Each sample's rows are decoded from its first row to its last, then picked."""
        starts, stops = rows.min(axis=1).tolist(), (rows.max(axis=1) + 1).tolist()
        return np.stack(
            [
                self.rows(name, start, stop)[of_one - start]
                for start, stop, of_one in zip(starts, stops, rows, strict=True)
            ]
        )


OpenShard = MappedShard | PackedShard
