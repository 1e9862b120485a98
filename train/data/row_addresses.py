"""The fast way of copying rows: one gather over the addresses of all samples, however many shards they lie in.

A batch of a shuffled epoch has its samples in as many files as it has samples. One call a file costs more than the
bytes; one ``torch.index_select`` over addresses costs the bytes alone, writes into a buffer that is there already and
lets go of the interpreter's lock. Its price is that a wrong address ends the process. So every address stays in this
file, each is checked against its array before it is used, and what this way cannot do is left to ``StridedRows``: rows
of shards that are not mapped, rows that lie outside, wide windows, and arrays that lie too far from the others.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlapipe.train.data.row_reader import WIDE_BYTES, RowReader, Rows, StridedRows
from vlapipe.train.data.shard_table import MappedShard, OpenShard, ShardTable

__all__ = ["AddressedRows", "choose_reader"]

_REACH = 1 << 47  # bytes: with windows of at most 2^15, as many as NumPy and torch count in 63 bits
_LOWEST = 1 << 12  # nothing is ever mapped below
_PAGE = 1 << 12
_NOWHERE = -1


def choose_reader(shards: ShardTable) -> RowReader:
    """The fastest way of copying rows that works here."""
    return AddressedRows(shards) if _works_here() else StridedRows(shards)


class AddressedRows:
    """Reads mapped shards, whose arrays ``ShardTable`` holds, and so keeps in place, while they are leased."""

    def __init__(self, shards: ShardTable) -> None:
        self._plain, self._places = StridedRows(shards), _Places(shards.num_shards)
        shards.watch(self._places.change)

    def read(self, rows: Rows, out: NDArray[Any]) -> None:
        """As ``RowReader`` says."""
        places = self._places.of(rows.name)
        if places is None or out[0].nbytes >= WIDE_BYTES or not _read(places, rows, out):
            self._plain.read(rows, out)


def _read(arrays: _Arrays, rows: Rows, out: NDArray[Any]) -> bool:
    """Whether it could be read."""
    if (out.dtype, out.shape[2:]) != (arrays.dtype, arrays.row_shape):
        return False
    start = arrays.start[rows.shard]
    if ((start < 0) | (rows.begin < 0) | (rows.end >= arrays.num_rows[rows.shard])).any():
        return False
    num_samples, apart = len(out), rows.apart
    in_bytes = out.reshape(num_samples, -1).view(np.uint8)
    if len(apart) < num_samples:
        begins = start + rows.begin * arrays.row_bytes
        if len(apart):  # T rows from there may reach past the end of the array: another sample's are read instead
            is_whole = np.ones(num_samples, dtype=bool)
            is_whole[apart] = False
            begins[apart] = begins[np.argmax(is_whole)]
        arrays.gather(begins, in_bytes)
    if len(apart):
        single = rows.single * arrays.row_bytes
        single += start[apart, None]
        of_apart = in_bytes if len(apart) == num_samples else np.empty((len(apart), in_bytes.shape[1]), np.uint8)
        arrays.gather(single.reshape(-1), of_apart.reshape(single.size, -1))
        if of_apart is not in_bytes:
            in_bytes[apart] = of_apart
    return True


class _Places:
    """Where the arrays of every mapped shard lie, by name."""

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._arrays: dict[str, _Arrays] = {}

    def of(self, name: str) -> _Arrays | None:
        """None if no shard that is mapped has had an array of this name."""
        return self._arrays.get(name)

    def change(self, number: int, shard: OpenShard | None) -> None:
        """Learn that a shard is mapped, packed or closed from now on."""
        for arrays in self._arrays.values():
            arrays.start[number] = _NOWHERE
        if isinstance(shard, MappedShard):
            for name, array in shard.arrays.items():
                if name not in self._arrays:
                    self._arrays[name] = _Arrays(array, self._num_shards)
                self._arrays[name].enter(number, array)


class _Arrays:
    """The arrays of one name: where each shard's begins, in bytes from a base that lies near the first of them.

    Nothing but differences of addresses is computed with 64 bits, so no address is too high.
    """

    def __init__(self, first: NDArray[Any], num_shards: int) -> None:
        self._base = max(_LOWEST, _address_of(first) - _REACH // 2)
        self.dtype, self.row_shape = first.dtype, first.shape[1:]
        self.row_bytes = first.dtype.itemsize * math.prod(first.shape[1:])
        self.start = np.full(num_shards, _NOWHERE, dtype=np.int64)
        self.num_rows = np.zeros(num_shards, dtype=np.int64)
        self._windows: dict[int, torch.Tensor] = {}

    def enter(self, number: int, array: NDArray[Any]) -> None:
        """Remember where a shard's array lies, unless it is unlike the first or out of reach."""
        start = _address_of(array) - self._base
        is_alike = (array.dtype, array.shape[1:]) == (self.dtype, self.row_shape) and array.flags.c_contiguous
        if is_alike and array.nbytes and 0 <= start <= _REACH - array.nbytes:
            self.num_rows[number] = len(array)
            self.start[number] = start  # last: who sees it reads the rest

    def gather(self, places: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy the ``W`` bytes at each place ``(N,)`` to ``out`` ``(N, W)``, C-contiguous. Each was checked."""
        width = out.shape[1]
        if width >= _PAGE:
            # A look at both ends of each window lets the processor find many pages at once instead of one after
            # another: 0.44 microseconds for a window of 4.8 kB instead of 0.52.
            ends = np.concatenate([places, places + (width - 1)])
            torch.index_select(self._all_windows(1), 0, torch.from_numpy(ends))
        torch.index_select(self._all_windows(width), 0, torch.from_numpy(places), out=torch.from_numpy(out))

    def _all_windows(self, width: int) -> torch.Tensor:
        """Row ``i`` is the ``width`` bytes that lie ``i`` bytes from the base."""
        windows = self._windows.get(width)
        if windows is None:
            memory = _Memory(self._base, (_REACH - width + 1, width))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that it is read-only: nothing writes to it
                windows = self._windows[width] = torch.from_numpy(np.asarray(memory))
            assert (windows.shape, windows.stride()) == (memory.shape, (1, 1))
            assert _base_of(windows) == self._base
        return windows


class _Memory:
    """What NumPy asks of whoever lends it memory: https://numpy.org/doc/stable/reference/arrays.interface.html."""

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
    """Where an array begins."""
    return int(array.ctypes.data)


def _base_of(windows: torch.Tensor) -> int:
    """Where row 0 begins."""
    return windows.data_ptr()


@cache
def _works_here() -> bool:
    """Try it on memory of our own: a platform on which NumPy or torch does anything else gets the plain way."""
    source = np.arange(40_000, dtype=np.uint16).view(np.uint8)
    starts, out = np.array([0, 1, 4097, 70_000]), np.empty((4, 5000), dtype=np.uint8)
    try:
        arrays = _Arrays(source, 1)
        arrays.enter(0, source)
        arrays.gather(arrays.start[0] + starts, out)
    except Exception:  # noqa: BLE001 - whatever it is, this way does not work
        return False
    return all(np.array_equal(row, source[start : start + 5000]) for row, start in zip(out, starts, strict=True))
