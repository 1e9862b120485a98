"""Memory for batches, used again as soon as nobody holds a tensor of the batch that was in it.

Fresh memory costs a page fault every 4 kB, which is as much as copying a batch into it.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["BatchBuffers", "Entry"]


@dataclass(frozen=True)
class Entry:
    """One entry of a batch: the shape of one sample's and its dtype."""

    shape: tuple[int, ...]
    dtype: Any


class BatchBuffers:
    """Lends the arrays of one batch at a time; safe to use from several threads."""

    def __init__(self, entries: dict[str, Entry], num_samples: int, num_kept: int, *, pinned: bool = False) -> None:
        """Keep memory for ``num_kept`` times ``num_samples``; ``pinned`` memory torch itself keeps."""
        self._entries, self._num_samples = entries, num_samples
        self._num_kept, self._pinned = num_kept, pinned
        self._kept: list[dict[str, NDArray[Any]]] = []
        self._lock = threading.Lock()

    def lend(self, count: int) -> tuple[dict[str, NDArray[Any]], dict[str, torch.Tensor]]:
        """Arrays of ``count`` samples by key, and the tensors that share their memory.

        The memory is lent for as long as any of the tensors, or a view of one, is held. Its content is arbitrary.
        """
        if self._pinned:
            tensors = {
                key: torch.empty((count, *e.shape), dtype=_TORCH[e.dtype], pin_memory=True)
                for key, e in self._entries.items()
            }
            return {key: tensor.numpy() for key, tensor in tensors.items()}, tensors
        with self._lock:
            arrays = self._free(count) or self._new(count)
            return arrays, {key: torch.from_numpy(array) for key, array in arrays.items()}

    def _free(self, count: int) -> dict[str, NDArray[Any]] | None:
        """Memory that is kept and that nobody holds; none for a batch of another size than most."""
        if count != self._num_samples:
            return None
        for arrays in self._kept:
            # The dictionary, the loop and the argument hold each array; so does a tensor, through its storage.
            if all(sys.getrefcount(array) == 3 for array in arrays.values()):
                return arrays
        return None

    def _new(self, count: int) -> dict[str, NDArray[Any]]:
        arrays = {key: np.empty((count, *e.shape), dtype=e.dtype) for key, e in self._entries.items()}
        if count == self._num_samples and len(self._kept) < self._num_kept:
            self._kept.append(arrays)
        return arrays


_TORCH = {np.float32: torch.float32, np.uint8: torch.uint8, np.bool_: torch.bool, np.int64: torch.int64}
