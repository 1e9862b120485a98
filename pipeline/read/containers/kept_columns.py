"""Keeps the last columns of row groups that were decoded for a part of their rows: the next part comes soon.

A converted dataset may hold hundreds of episodes in one row group. Without this, each episode would decode them all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

__all__ = ["KeptColumns"]


class KeptColumns:
    """Arrow columns by key, at most ``most_bytes`` of them; the least recently used go first. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._columns: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, read: Callable[[], Any]) -> Any:
        """Returns the column called ``key``; calls ``read`` if it is not kept."""
        with self._lock:
            if key in self._columns:
                self._columns.move_to_end(key)
                return self._columns[key]
        column = read()
        with self._lock:
            if key not in self._columns and column.nbytes <= self._most_bytes:
                self._columns[key] = column
                self._num_bytes += column.nbytes
                while self._num_bytes > self._most_bytes:
                    self._num_bytes -= self._columns.popitem(last=False)[1].nbytes
        return column
