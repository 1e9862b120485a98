"""Recycles the memory of batches: a batch's memory is free again when the last tensor or array on it is gone.

Fresh memory costs a page fault every 4 kB, which takes as long as copying a batch into the memory.

Each batch's memory has an owner object. NumPy and torch keep a reference to the owner while any array or tensor can
reach the memory. The owner's finalizer gives the memory back, so no reference count is ever read. If garbage is
collected late or never, the memory comes back late or never, but it is never lent twice.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["BatchBuffers", "Entry"]

_ALIGNED = 64  # bytes: one cache line


@dataclass(frozen=True)
class Entry:
    """One entry of a batch: its dtype, and its shape for one sample."""

    shape: tuple[int, ...]
    dtype: Any


class BatchBuffers:
    """Lends the arrays of one batch at a time; thread-safe."""

    def __init__(self, entries: dict[str, Entry], num_samples: int, num_kept: int, *, pinned: bool = False) -> None:
        """Keep the memory of ``num_kept`` batches of ``num_samples`` for reuse; torch itself recycles pinned memory."""
        self._entries, self._num_samples, self._pinned = entries, num_samples, pinned
        # A finalizer must take no lock: it may run in any thread, while that thread holds any lock. A deque's append
        # and pop are atomic and need none.
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=num_kept)
        self._places, self._num_bytes = _lay_out(entries, num_samples)

    def lend(self, count: int) -> tuple[dict[str, NDArray[Any]], dict[str, torch.Tensor]]:
        """Lend arrays of ``count`` samples by key, and tensors on the same memory; the content is arbitrary.

        The memory is lent until every array, every tensor and every view of them is gone.
        """
        if self._pinned:
            # torch's own allocator also knows which asynchronous copies to a GPU still read a block.
            tensors = {
                key: torch.empty((count, *e.shape), dtype=_TORCH[e.dtype], pin_memory=True)
                for key, e in self._entries.items()
            }
            return {key: tensor.numpy() for key, tensor in tensors.items()}, tensors
        if count != self._num_samples:
            places, num_bytes = _lay_out(self._entries, count)
            memory = np.empty(num_bytes, dtype=np.uint8)
        else:
            places = self._places
            memory = np.asarray(_Lent(self._take(), self._free))
        arrays = {key: np.ndarray((count, *e.shape), e.dtype, memory, places[key]) for key, e in self._entries.items()}
        return arrays, {key: torch.from_numpy(array) for key, array in arrays.items()}

    def _take(self) -> NDArray[np.uint8]:
        try:
            return self._free.pop()
        except IndexError:
            return np.empty(self._num_bytes, dtype=np.uint8)


class _Lent:
    """Owns a batch's memory by NumPy's protocol: https://numpy.org/doc/stable/reference/arrays.interface.html.

    Every array on the memory keeps a reference to the owner. The finalizer runs after the last array is gone, and gives
    the memory back.
    """

    def __init__(self, memory: NDArray[np.uint8], free: deque[NDArray[np.uint8]]) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)


def _lay_out(entries: dict[str, Entry], count: int) -> tuple[dict[str, int], int]:
    """The byte offset of each entry in the memory of ``count`` samples, and the number of bytes in all."""
    places, end = {}, 0
    for key, entry in entries.items():
        places[key] = end
        num_bytes = count * math.prod(entry.shape) * np.dtype(entry.dtype).itemsize
        end += -(-num_bytes // _ALIGNED) * _ALIGNED
    return places, end


_TORCH = {
    np.float32: torch.float32,
    np.float64: torch.float64,
    np.uint8: torch.uint8,
    np.uint16: torch.uint16,
    np.bool_: torch.bool,
    np.int64: torch.int64,
}
