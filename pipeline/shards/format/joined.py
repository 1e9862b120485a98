"""Concatenates arrays without a copy: a shard that is being written uses the memory of its episodes' own arrays."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Joined"]

_NARROW = 64  # a field with at most this many columns is stored column by column


@dataclass(frozen=True)
class Block:
    """The rows ``start <= i < stop`` of an array, or of one of its columns."""

    start: int
    stop: int
    column: int | None = None


class Joined:
    """The rows of all parts in order, like one array. Parts are ``(rows, ...)``, with the same dtype and row shape."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self.parts = parts
        self.dtype = parts[0].dtype
        self._starts: list[int] = np.cumsum([0, *map(len, parts)]).tolist()
        self.shape: tuple[int, ...] = (self._starts[-1], *parts[0].shape[1:])
        assert all(part.dtype == self.dtype and part.shape[1:] == self.shape[1:] for part in parts)

    @property
    def is_narrow(self) -> bool:
        """Whether the array is two-dimensional with at most 64 columns."""
        return len(self.shape) == 2 and self.shape[1] <= _NARROW

    @property
    def is_fortran(self) -> bool:
        """Whether the parts are column-major."""
        if len(self.shape) != 2 or all(part.flags.c_contiguous for part in self.parts):
            return False
        return all(part.strides[0] == self.dtype.itemsize or len(part) <= 1 for part in self.parts)

    def blocks(self, max_bytes: int, *, fortran: bool = False, within_parts: bool = False) -> list[Block]:
        """Divide the array into blocks of about ``max_bytes``, in row-major order, or column-major if ``fortran``.

        ``within_parts``: no block extends over two parts, so C-ordered parts are read without a copy.
        """
        columns: list[int | None] = list(range(self.shape[1])) if fortran else [None]
        row_bytes = self.dtype.itemsize * (1 if fortran else math.prod(self.shape[1:]))
        step = max(1, max_bytes // max(1, row_bytes))
        spans = list(pairwise(self._starts)) if within_parts else [(0, self.shape[0])]
        return [
            Block(i, min(i + step, stop), column)
            for column in columns
            for start, stop in spans
            for i in range(start, stop, step)
        ]

    def read(self, block: Block) -> NDArray[Any]:
        """Returns the block's values in C order: a NumPy view if they are contiguous in one part, otherwise a copy."""
        pieces = list(self._pieces(block))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        shape = self.shape[1:] if block.column is None else ()
        values = np.empty((block.stop - block.start, *shape), dtype=self.dtype)
        return np.concatenate(pieces, out=values) if pieces else values

    def equals(self, values: NDArray[Any], block: Block) -> bool:
        """Whether ``values`` equal the block's values bit by bit."""
        shape = (block.stop - block.start, *(self.shape[1:] if block.column is None else ()))
        if values.shape != shape or values.dtype != self.dtype:
            return False
        # Concatenate first, because comparing hundreds of short pieces one by one takes longer than copying them. Do
        # not use ``read``: it produced the stored bytes, so a fault of ``read`` would go unnoticed.
        pieces = list(self._pieces(block))
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else values
        return np.array_equal(_words(values), _words(whole))

    def _pieces(self, block: Block) -> Iterator[NDArray[Any]]:
        """Yield NumPy views of the parts that the block consists of, in order."""
        part = bisect_right(self._starts, block.start) - 1
        at = block.start
        while at < block.stop:
            start, end = self._starts[part], min(self._starts[part + 1], block.stop)
            if end > at:
                rows = self.parts[part][at - start : end - start]
                yield rows if block.column is None else rows[:, block.column]
                at = end
            part += 1


def _words(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the array's bytes in C order, as uint64 if their number is a multiple of 8. NaN then equals itself."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.view(np.uint64) if flat.nbytes % 8 == 0 else flat
