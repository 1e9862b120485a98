"""Runs jobs in threads and returns their results in the order of the jobs, so the output is deterministic.

``close`` waits only for the jobs in progress. It may be called from any thread and in any state. The end of the process
closes every pool.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

__all__ = ["InOrder", "Threads", "in_order"]

T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]
_LEAVE: tuple[()] = ()


class Threads:
    """A pool of threads that can grow and shrink. Each thread first calls ``_begin``."""

    def __init__(self, count: int, name: str = "vlapipe-job") -> None:
        """Start ``count`` threads. A thread's name is ``name`` and a number."""
        # The queue contains tasks. `_LEAVE` ends one thread. `None` ends all: each thread that gets it puts it back.
        self._tasks: queue.SimpleQueue[_Task | tuple[()] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._name, self._num_leaving, self._is_closed = name, 0, False
        with _pools_lock:
            _pools.add(self)
        self.add(count)

    def __len__(self) -> int:
        return len(self._threads) - self._num_leaving

    def add(self, count: int = 1) -> None:
        """Start ``count`` more threads, or fewer if the system does not allow as many.

        Raises:
            RuntimeError: the pool has no thread, and the system does not allow one.
        """
        begun: queue.SimpleQueue[None] = queue.SimpleQueue()
        started = []
        for _ in range(count):
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._run, args=(begun,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                break
            self._threads.append(thread)
            started.append(thread)
        for _ in started:
            begun.get()

    def remove(self, count: int) -> None:
        """End ``count`` threads after the jobs that have been submitted so far. The last thread always stays."""
        for _ in range(min(count, len(self) - 1)):
            self._tasks.put(_LEAVE)
            self._num_leaving += 1

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Submit a job. If the pool is closed before the job has begun, the future is cancelled."""
        future: Future[T] = Future()
        self._tasks.put((future, job))
        if self._is_closed:  # there may be no thread left that would take the task
            future.cancel()
        return future

    def stop(self) -> None:
        """Begin no more jobs. Does not wait.

        ``stop`` takes no lock, because finalizers call it and the garbage collector runs in any thread at any time.
        """
        self._is_closed = True
        self._tasks.put(None)

    def close(self) -> None:
        """Begin no more jobs, and wait for the jobs in progress."""
        self.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _begin(self) -> None:
        """Prepare the calling thread; subclasses override this method."""

    def _run(self, begun: queue.SimpleQueue[None]) -> None:
        try:
            self._begin()
        finally:
            begun.put(None)
        while task := self._tasks.get():
            future, job = task
            if self._is_closed:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except BaseException as error:  # noqa: BLE001 - the future raises it again for its caller
                    future.set_exception(error)
            del task, future, job  # otherwise the thread would keep the last result alive until the next task
        if task is None:
            self._tasks.put(None)


class InOrder(Iterator[T]):
    """An iterator over the results of jobs, in the order of the jobs. Only one thread may call ``next``.

    Any thread may call ``close``, which ends the iterator. If a job raises an exception, ``next`` raises it in place of
    the result, and the iterator closes. If you drop the iterator early, no more jobs begin. Only ``close`` waits for
    the jobs in progress.
    """

    def __init__(
        self,
        jobs: Iterable[Callable[[], T]],
        threads: Threads | None,
        depth: int = 0,
        tune: Callable[[float, int], int] | None = None,
    ) -> None:
        """Store the arguments. No job begins before the first ``next``.

        Args:
            jobs: the jobs. The iterator takes them from ``jobs`` one at a time, as results are taken.
            threads: the pool that runs the jobs; ``close`` closes it. If ``None``, ``next`` runs each job itself.
            depth: number of results that are ready or in progress at a time; at least the number of threads plus one.
            tune: called with the seconds waited for a result and the number of threads. Returns the number of threads
                to add, or to end if negative.
        """
        self._jobs, self._threads, self._depth, self._tune = iter(jobs), threads, depth, tune
        self._coming: deque[Future[T]] = deque()
        self._is_closed = False

    def __next__(self) -> T:
        try:
            if self._is_closed:
                raise StopIteration
            if self._threads is None:
                return next(self._jobs)()
            return self._take(self._threads)
        except BaseException:
            self.close()
            raise

    def _take(self, threads: Threads) -> T:
        while len(self._coming) < max(self._depth, len(threads) + 1) and (job := next(self._jobs, None)) is not None:
            self._coming.append(threads.submit(job))
        if not self._coming:
            raise StopIteration
        began = time.perf_counter()
        future = self._coming.popleft()
        try:
            result = future.result()
        except CancelledError:
            if future.cancelled():  # another thread has closed the pool
                raise StopIteration from None
            raise
        if self._tune is not None:
            change = self._tune(time.perf_counter() - began, len(threads))
            if change > 0:
                threads.add(change)
            elif change < 0:
                threads.remove(-change)
        return result

    def close(self) -> None:
        """Begin no more jobs, and wait for the jobs in progress."""
        self._is_closed = True
        if self._threads is not None:
            self._threads.close()

    def __del__(self) -> None:
        threads = getattr(self, "_threads", None)
        if threads is not None:
            threads.stop()


def in_order(jobs: Iterable[Callable[[], T]], num_threads: int) -> InOrder[T]:
    """Returns an iterator over the jobs' results. The threads work at most ``2 * num_threads + 1`` jobs ahead."""
    return InOrder(jobs, Threads(num_threads), depth=2 * num_threads + 1)


_pools: weakref.WeakSet[Threads] = weakref.WeakSet()
_pools_lock = threading.Lock()


@atexit.register
def _close_all() -> None:
    """Close all pools at exit. A thread that runs during the interpreter's shutdown may crash the process."""
    with _pools_lock:
        pools = list(_pools)
    for pool in pools:
        pool.close()
