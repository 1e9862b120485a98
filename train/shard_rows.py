"""An open shard in its two states: mapped, or packed, whose rows are decoded as they are asked for.

Both have the same methods, so that whoever reads rows need not know the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.mapped.packed_rows import SampleRows

__all__ = ["MappedShard", "OpenShard", "PackedShard"]


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

    def runs(self, name: str, first: NDArray[np.int64], num_rows: int) -> NDArray[Any]:
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

    def __init__(self, rows: SampleRows, names: Mapping[str, str]) -> None:
        self._rows, self._names = rows, names

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def num_rows(self, name: str) -> int:
        """Of the whole array."""
        return self._rows.num_rows(self._names[name])

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop``; of actions, within one episode."""
        return self._rows.read(self._names[name], start, stop)

    def runs(self, name: str, first: NDArray[np.int64], num_rows: int) -> NDArray[Any]:
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
