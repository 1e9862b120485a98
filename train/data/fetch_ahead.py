"""Fetches shards of datasets in stores, in the order in which batches will need them, ahead of the batches."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable, Iterator

__all__ = ["FetchAhead"]

Fetch = Callable[[int, Callable[[], bool]], object]  # the shard, and whether the fetching has been cancelled


class FetchAhead:
    """A thread that fetches shards one after another. Each comes in several pieces at once.

    An error ends the thread; the batch that needs the shard fetches it itself, and raises the error.
    """

    def __init__(
        self, shards: Iterator[int], fetch: Fetch, num_bytes: Callable[[int], int], most_bytes: int | None = None
    ) -> None:
        """Start at once.

        Args:
            shards: numbers of shards in the order in which batches need them, each once.
            fetch: fetches one shard, or finds that it is in the cache.
            num_bytes: the size of a shard.
            most_bytes: limit on fetched shards that no batch has used yet; ``None``: no limit. One is always fetched.
        """
        self._shards, self._fetch, self._num_bytes, self._most_bytes = shards, fetch, num_bytes, most_bytes
        self._changed = threading.Condition()
        self._unused: dict[int, int] = {}  # bytes of fetched shards
        self._used: set[int] = set()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="vlapipe-fetching", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a shard is being fetched, or waits for room."""
        return self._thread.is_alive()

    def use(self, shards: Iterable[int]) -> None:
        """Say that a batch needs these shards now."""
        with self._changed:
            self._used.update(shards)
            for shard in self._used & self._unused.keys():
                del self._unused[shard]
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread, after the piece that it is fetching; any thread may call this, several times."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        atexit.register(self.close)  # a thread that runs while the interpreter is torn down may crash it
        try:
            for shard in self._shards:
                if not self._waits_for_room(self._num_bytes(shard)):
                    return
                self._fetch(shard, lambda: self._is_closed)
                with self._changed:
                    if shard not in self._used:
                        self._unused[shard] = self._num_bytes(shard)
        except Exception:  # noqa: BLE001 - the batch that needs the shard meets the error too
            return
        finally:
            atexit.unregister(self.close)

    def _waits_for_room(self, num_bytes: int) -> bool:
        """Wait until the shard may be fetched. Returns ``False`` if the fetching is closed."""
        with self._changed:
            if self._most_bytes is not None:
                most = self._most_bytes
                self._changed.wait_for(
                    lambda: self._is_closed or not self._unused or sum(self._unused.values()) + num_bytes <= most
                )
            return not self._is_closed
