"""Keeps a few batches ready ahead of whoever takes them, in order, and finds out how many threads that needs.

Only so many are ready or in the making at a time, however slowly they are taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from vlapipe.train.threads import Threads

__all__ = ["Pace", "ahead"]

Work = TypeVar("Work")
Result = TypeVar("Result")

_PROBE = 16  # batches that a decision is made upon
_WAITING = 0.05  # share of the time spent waiting that is worth another thread
_GAIN = 0.05  # what twice the threads must bring, or they are let go


class Pace:
    """Decides how many threads there should be: twice as many, while somebody waits for them and it helps."""

    def __init__(self, most: int, settled: Callable[[str], None] | None = None) -> None:
        """At most ``most`` threads; ``settled`` is told once what was chosen, in a sentence."""
        self._most, self._say = most, settled
        self._period_before = 0.0  # seconds a batch before threads were added; 0 if none were
        self._added = 0
        self._is_settled = False
        self._begin_probe()

    def _begin_probe(self, skip: int = 1) -> None:
        """Count from ``skip`` batches on: those before were prepared in other circumstances."""
        self._count, self._waited_s, self._began_s = -skip, 0.0, 0.0

    def step(self, waited_s: float, num_threads: int) -> int:
        """Threads to add, or to let go if negative, after ``waited_s`` was waited for a batch."""
        if self._is_settled:
            return 0
        self._count += 1
        if self._count <= 0:
            self._began_s = time.perf_counter()
            return 0
        self._waited_s += waited_s
        if self._count < _PROBE:
            return 0
        passed_s = time.perf_counter() - self._began_s
        period_s, share = passed_s / self._count, self._waited_s / passed_s
        if self._period_before and period_s > (1 - _GAIN) * self._period_before:
            self._settle(num_threads - self._added, share)
            return -self._added
        if share < _WAITING or num_threads >= self._most:
            self._settle(num_threads, share)
            return 0
        self._period_before, self._added = period_s, min(num_threads, self._most - num_threads)
        self._begin_probe(skip=_PROBE)
        return self._added

    def _settle(self, num_threads: int, share: float) -> None:
        self._is_settled = True
        if self._say is not None:
            threads = "1 thread prepares" if num_threads == 1 else f"{num_threads} threads prepare"
            self._say(
                f"{threads} batches (of at most {self._most}); {share:.0%} of the time was spent waiting for them"
            )


def ahead(
    work: Iterator[Work], make: Callable[[Work], Result], *, num_threads: int, depth: int, pace: Pace | None = None
) -> Iterator[Result]:
    """``make(item)`` of every item, in order; ``depth`` of them are ready or in the making, or one more than threads.

    ``pace`` may change the number of threads. An error in a thread is raised where its result was to come.
    """
    threads = Threads(num_threads)
    coming: deque[Future[Result]] = deque()
    try:
        while True:
            while len(coming) < max(depth, len(threads) + 1) and (item := next(work, None)) is not None:
                coming.append(threads.submit(make, item))
            if not coming:
                return
            began = time.perf_counter()
            result = coming.popleft().result()
            if pace is not None:
                change = pace.step(time.perf_counter() - began, len(threads))
                if change > 0:
                    threads.add(change)
                elif change < 0:
                    threads.remove(-change)
            yield result
            del result  # or it would be held while the next one is waited for
    finally:
        threads.close()
