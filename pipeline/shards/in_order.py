"""Runs jobs in threads and hands their results on in the jobs' order, so that what is made of them never varies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

T = TypeVar("T")


def in_order(jobs: Iterable[Callable[[], T]], num_threads: int) -> Iterator[T]:
    """Yield each job's result; the threads work ahead while the caller uses it, a few jobs at most.

    A job's exception is raised where its result would have come; jobs that have not begun by then are left.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
