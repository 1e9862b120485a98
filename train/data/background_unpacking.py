"""Unpacks shards in a thread of its own while batches are made of what is there."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable

__all__ = ["Unpacking"]


class Unpacking:
    """Calls ``unpack(shard)`` for each shard that is asked for, one after another, until all are done.

    Only as long as somebody holds the object that ``unpack`` is a method of.
    """

    def __init__(self, unpack: Callable[[int], None]) -> None:
        self._unpack = weakref.WeakMethod(unpack)
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._current: int | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there are shards left to unpack."""
        return self._thread is not None

    def ask(self, shards: Iterable[int]) -> None:
        """Have more shards unpacked.

        Raises:
            BaseException: an earlier one could not be; the error is that.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            self._waiting |= set(shards) - {self._current}
            if self._waiting and self._thread is None:
                # Not waited for when the process ends: it holds nothing that a killed process would not leave, either.
                self._thread = threading.Thread(target=self._run, name="vlapipe-unpacking", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        atexit.register(threading.current_thread().join)
        try:
            while (shard := self._next()) is not None:
                unpack = self._unpack()
                if unpack is None:
                    return
                unpack(shard)
                del unpack
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the shard is asked for
            self._error = error
        finally:
            atexit.unregister(threading.current_thread().join)

    def _next(self) -> int | None:
        with self._lock:
            if not self._waiting:
                self._thread = self._current = None
                return None
            # Ranks ask for much the same shards at the same time: each begins elsewhere, so that they share the work.
            shard = min(self._waiting, key=lambda shard: hash((shard, os.getpid())))
            self._waiting.remove(shard)
            self._current = shard
            return shard
