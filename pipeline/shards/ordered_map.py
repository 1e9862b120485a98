"""Runs jobs in threads and hands their results on in the jobs' order, so that what is made of them never varies.

Closing waits for the jobs in progress and for nothing else: from any thread, in any state, and when the process ends.
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
    """A pool of threads that can grow and shrink. ``_begin`` is called first in each of them."""

    def __init__(self, count: int, name: str = "vlapipe-job") -> None:
        """Start ``count`` threads, which are called ``name`` and a number."""
        # Tasks; `_LEAVE` ends one thread; `None` ends all, as each thread that takes it puts it back for the next.
        self._tasks: queue.SimpleQueue[_Task | tuple[()] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._name, self._num_leaving, self._is_closed = name, 0, False
        with _pools_lock:
            _pools.add(self)
        self.add(count)

    def __len__(self) -> int:
        return len(self._threads) - self._num_leaving

    def add(self, count: int = 1) -> None:
        """Start more threads: as many as the system allows, at least one.

        Raises:
            RuntimeError: the system does not allow one.
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
        """End as many threads after what has been submitted so far, but never the last one."""
        for _ in range(min(count, len(self) - 1)):
            self._tasks.put(_LEAVE)
            self._num_leaving += 1

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have a job run. The future is cancelled if the pool is closed before the job has begun."""
        future: Future[T] = Future()
        self._tasks.put((future, job))
        if self._is_closed:  # then there may be no thread left that would find it
            future.cancel()
        return future

    def stop(self) -> None:
        """Have no more jobs begin, without waiting.

        Takes no lock, so that a finalizer may call it: the garbage collector runs in any thread, at any moment.
        """
        self._is_closed = True
        self._tasks.put(None)

    def close(self) -> None:
        """Have no more jobs begin, and wait for those in progress."""
        self.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _begin(self) -> None:
        """Prepare the thread that calls this."""

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
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised for who waits for the result
                    future.set_exception(error)
            del task, future, job  # or the last result would be held until the next task comes
        if task is None:
            self._tasks.put(None)


class InOrder(Iterator[T]):
    """The results of jobs in the jobs' order, for one taker. It ends when it is closed, by whichever thread.

    A job's exception is raised where its result would have come; then it is closed. An iterator that is dropped before
    its end has no more jobs begin; only ``close`` waits for those in progress.
    """

    def __init__(
        self,
        jobs: Iterable[Callable[[], T]],
        threads: Threads | None,
        depth: int = 0,
        tune: Callable[[float, int], int] | None = None,
    ) -> None:
        """Begin nothing before the first result is asked for.

        Args:
            jobs: are run, and asked for, one at a time as results are taken.
            threads: run them, and are closed with the iterator. Without any, each job runs when its result is due.
            depth: results that are ready or in the making at a time, or one more than there are threads.
            tune: is told the seconds waited for a result and the number of threads, and says how many threads to add,
                or to end if negative.
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
            if future.cancelled():  # by another thread, which closed this
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
        """Have no more jobs begin, and wait for those in progress."""
        self._is_closed = True
        if self._threads is not None:
            self._threads.close()

    def __del__(self) -> None:
        threads = getattr(self, "_threads", None)
        if threads is not None:
            threads.stop()


def in_order(jobs: Iterable[Callable[[], T]], num_threads: int) -> InOrder[T]:
    """Each job's result; the threads work ahead while the caller uses it, a few jobs at most."""
    return InOrder(jobs, Threads(num_threads), depth=2 * num_threads + 1)


_pools: weakref.WeakSet[Threads] = weakref.WeakSet()
_pools_lock = threading.Lock()


@atexit.register
def _close_all() -> None:
    """For iterators that somebody still holds: a thread that runs while the interpreter is torn down may crash it."""
    with _pools_lock:
        pools = list(_pools)
    for pool in pools:
        pool.close()
