"""The fast way of copying rows: one gather over the addresses of all samples, whatever the number of their shards.

In a shuffled epoch, nearly every sample of a batch lies in another file. One call for each file costs more than copying
the bytes. One ``torch.index_select`` over addresses costs only the copy, writes into an existing buffer and releases
the interpreter's lock. The danger is that a wrong address crashes the process. So no address leaves this file, and each
address is checked against its array before it is used. ``StridedRows`` does what this way cannot do: rows of shards
that are not mapped, rows outside their array, wide windows, and arrays whose addresses lie too far from the others.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlapipe.train.data.rows.row_reader import WIDE_BYTES, AnyRows, RowReader, StridedRows
from vlapipe.train.data.rows.shard_table import MappedShard, OpenShard, ShardTable

__all__ = ["AddressedRows", "choose_reader"]

_REACH = 1 << 47  # bytes: times windows of at most 2^15 bytes, NumPy and torch still count them in 63 bits
_LOWEST = 1 << 12  # no memory is ever mapped below this address
_PAGE = 1 << 12
_NOWHERE = -1


def choose_reader(shards: ShardTable) -> RowReader:
    """Choose the fastest way of copying rows that works on this platform."""
    return AddressedRows(shards) if _works_here() else StridedRows(shards)


class AddressedRows:
    """Reads mapped shards by address. ``ShardTable`` keeps a leased shard's arrays, so their addresses stay valid."""

    def __init__(self, shards: ShardTable) -> None:
        self._plain, self._places = StridedRows(shards), _Places(shards.num_shards)
        shards.watch(self._places.change)

    def read(self, rows: AnyRows, out: NDArray[Any]) -> None:
        """See ``RowReader``."""
        if not len(out):
            return
        places = self._places.of(rows.name)
        if places is None or out[0].nbytes >= WIDE_BYTES or not _read(places, rows, out):
            self._plain.read(rows, out)


def _read(arrays: _Arrays, rows: AnyRows, out: NDArray[Any]) -> bool:
    """Read the rows by address if every check allows it; returns whether ``out`` is filled."""
    if (out.dtype, out.shape[2:]) != (arrays.dtype, arrays.row_shape):
        return False
    start = arrays.start[rows.shard]
    if ((start < 0) | (rows.begin < 0) | (rows.end >= arrays.num_rows[rows.shard])).any():
        return False
    num_samples, apart = len(out), rows.apart
    in_bytes = out.reshape(num_samples, -1).view(np.uint8)
    if len(apart) < num_samples:
        begins = start + rows.begin * arrays.row_bytes
        if len(apart):  # T contiguous rows could leave the array: read another sample's for now
            is_whole = np.ones(num_samples, dtype=bool)
            is_whole[apart] = False
            begins[apart] = begins[np.argmax(is_whole)]
        arrays.gather(begins, in_bytes)
    if len(apart):
        single = rows.ahead * arrays.row_bytes
        single += (start[apart] + rows.first[apart] * arrays.row_bytes)[:, None]
        of_apart = in_bytes if len(apart) == num_samples else np.empty((len(apart), in_bytes.shape[1]), np.uint8)
        arrays.gather(single.reshape(-1), of_apart.reshape(single.size, -1))
        if of_apart is not in_bytes:
            in_bytes[apart] = of_apart
    return True


class _Places:
    """The addresses of the arrays of every mapped shard, by the arrays' name."""

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._arrays: dict[str, _Arrays] = {}

    def of(self, name: str) -> _Arrays | None:
        """The arrays of this name; ``None`` if no mapped shard has had an array of this name yet."""
        return self._arrays.get(name)

    def change(self, number: int, shard: OpenShard | None) -> None:
        """Note that a shard is now mapped, packed or (with ``None``) closed."""
        for arrays in self._arrays.values():
            arrays.start[number] = _NOWHERE
        if isinstance(shard, MappedShard):
            for name, array in shard.arrays.items():
                if name not in self._arrays:
                    self._arrays[name] = _Arrays(array, self._num_shards)
                self._arrays[name].enter(number, array)


class _Arrays:
    """The arrays of one name: the byte offset of each shard's array from a base address near the first array.

    64-bit integers hold only differences of addresses, so no address is too high for them.
    """

    def __init__(self, first: NDArray[Any], num_shards: int) -> None:
        self._base = max(_LOWEST, _address_of(first) - _REACH // 2)
        self.dtype, self.row_shape = first.dtype, first.shape[1:]
        self.row_bytes = first.dtype.itemsize * math.prod(first.shape[1:])
        self.start = np.full(num_shards, _NOWHERE, dtype=np.int64)
        self.num_rows = np.zeros(num_shards, dtype=np.int64)
        self._windows: dict[int, torch.Tensor] = {}

    def enter(self, number: int, array: NDArray[Any]) -> None:
        """Note the address of a shard's array, unless its dtype or row shape differs or it is out of reach."""
        start = _address_of(array) - self._base
        is_alike = (array.dtype, array.shape[1:]) == (self.dtype, self.row_shape) and array.flags.c_contiguous
        if is_alike and array.nbytes and 0 <= start <= _REACH - array.nbytes:
            self.num_rows[number] = len(array)
            self.start[number] = start  # last: a thread that sees the start reads num_rows too

    def gather(self, places: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy the ``W`` bytes at each byte offset ``(N,)`` to ``out`` ``(N, W)``, C-contiguous; checked before."""
        width = out.shape[1]
        if width >= _PAGE:
            # Reading both ends of each window first lets the processor look up many pages at once instead of one
            # after another: a window of 4.8 kB takes 0.44 microseconds instead of 0.52.
            ends = np.concatenate([places, places + (width - 1)])
            torch.index_select(self._all_windows(1), 0, torch.from_numpy(ends))
        torch.index_select(self._all_windows(width), 0, torch.from_numpy(places), out=torch.from_numpy(out))

    def _all_windows(self, width: int) -> torch.Tensor:
        """A tensor over all the memory in reach: row ``i`` is the ``width`` bytes from ``i`` bytes after the base."""
        windows = self._windows.get(width)
        if windows is None:
            memory = _Memory(self._base, (_REACH - width + 1, width))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # warns that the array is read-only; nothing writes to it
                windows = self._windows[width] = torch.from_numpy(np.asarray(memory))
            assert (windows.shape, windows.stride()) == (memory.shape, (1, 1))
            assert _base_of(windows) == self._base
        return windows


class _Memory:
    """Memory by NumPy's array interface: https://numpy.org/doc/stable/reference/arrays.interface.html."""

    def __init__(self, address: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": shape,
            "strides": (1, 1),
            "data": (address, True),
        }


def _address_of(array: NDArray[Any]) -> int:
    """The address of an array's first byte."""
    return int(array.ctypes.data)


def _base_of(windows: torch.Tensor) -> int:
    """The address of row 0."""
    return windows.data_ptr()


@cache
def _works_here() -> bool:
    """Try the gather on memory of our own. If NumPy or torch behaves otherwise here, the plain way is used."""
    source = np.arange(40_000, dtype=np.uint16).view(np.uint8)
    starts, out = np.array([0, 1, 4097, 70_000]), np.empty((4, 5000), dtype=np.uint8)
    try:
        arrays = _Arrays(source, 1)
        arrays.enter(0, source)
        arrays.gather(arrays.start[0] + starts, out)
    except Exception:  # noqa: BLE001 - any error means that this way does not work
        return False
    return all(np.array_equal(row, source[start : start + 5000]) for row, start in zip(out, starts, strict=True))
