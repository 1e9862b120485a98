"""Unpacks shards in a background thread while batches are made."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable

__all__ = ["Unpacking"]


class Unpacking:
    """Calls ``unpack(shard)`` for each shard that is asked for, one after another, until all are done.

    ``unpack`` is a bound method. Only a weak reference to its object is kept, so the thread ends when the object is
    gone.
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
        """Add shards that the thread shall unpack.

        Raises:
            BaseException: unpacking of an earlier shard failed; the error is the one that was raised there.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            self._waiting |= set(shards) - {self._current}
            if self._waiting and self._thread is None:
                # A daemon thread, which ``threading`` does not join at exit. ``_run`` makes ``atexit`` join it instead,
                # because a thread that runs while the interpreter is torn down may crash it.
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
        except BaseException as error:  # noqa: BLE001 - ``ask`` raises it in the caller's thread
            self._error = error
        finally:
            atexit.unregister(threading.current_thread().join)

    def _next(self) -> int | None:
        with self._lock:
            if not self._waiting:
                self._thread = self._current = None
                return None
            # Ranks ask for nearly the same shards at the same time. Each rank has another order, so that they divide
            # the work.
            shard = min(self._waiting, key=lambda shard: hash((shard, os.getpid())))
            self._waiting.remove(shard)
            self._current = shard
            return shard
