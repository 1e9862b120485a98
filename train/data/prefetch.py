"""Prepares a few batches ahead in threads, in order, and finds out how many threads are needed.

The number of batches that are ready or in the making is limited, however slowly the batches are taken. Threads are
enough, and no worker processes are needed, because copying and decoding release the interpreter's lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import torch

from vlapipe.pipeline.shards.ordered_map import InOrder, Threads

__all__ = ["LoaderThreads", "Pace", "ahead", "threads_at_most"]

Work = TypeVar("Work")
Result = TypeVar("Result")

_PROBE = 16  # number of batches that a decision is based on
_WAITING = 0.05  # fraction of the time spent waiting from which more threads are tried
_GAIN = 0.05  # least saving of time per batch by the added threads; else they are removed


class Pace:
    """Decides the number of threads: doubles it while training waits for batches and more threads help.

    The decision stays open, because the first steps of a run may be slow, until added threads have not helped.
    """

    def __init__(
        self,
        most: int,
        chosen: Callable[[str], None] | None = None,
        is_settled: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin to measure.

        Args:
            most: limit on the number of threads.
            chosen: is called with one sentence that says how many threads were chosen.
            is_settled: says whether measured times count; they do not while shards are unpacked in the background, for
                instance.
        """
        self._most, self._say, self._said, self._is_settled = most, chosen, 0, is_settled
        self._period_before = 0.0  # seconds a batch before threads were added; 0 if the last decision added none
        self._added = 0
        self._is_over = False
        self._begin_probe(skip=1)

    def _begin_probe(self, skip: int) -> None:
        """Measure again after ``skip`` batches, which were prepared under the old conditions."""
        self._count, self._waited_s, self._began_s = -skip, 0.0, 0.0

    def step(self, waited_s: float, num_threads: int) -> int:
        """Number of threads to add (to end if negative), after training waited ``waited_s`` for a batch."""
        if self._is_over:
            return 0
        if not self._is_settled():
            self._begin_probe(skip=_PROBE)
            return 0
        self._count += 1
        if self._count <= 0:
            self._began_s = time.perf_counter()
            return 0
        self._waited_s += waited_s
        if self._count < _PROBE:
            return 0
        passed_s = time.perf_counter() - self._began_s
        return self._decide(passed_s / self._count, self._waited_s / passed_s, num_threads)

    def _decide(self, period_s: float, waiting: float, num_threads: int) -> int:
        in_vain = bool(self._period_before) and period_s > (1 - _GAIN) * self._period_before
        if in_vain:
            self._is_over = True
            self._tell(num_threads - self._added, waiting)
            return -self._added
        if waiting < _WAITING or num_threads >= self._most:
            self._tell(num_threads, waiting)
            self._period_before = 0.0
            self._begin_probe(skip=1)
            return 0
        self._period_before, self._added = period_s, min(num_threads, self._most - num_threads)
        self._begin_probe(skip=_PROBE)
        return self._added

    def _tell(self, num_threads: int, waiting: float) -> None:
        if self._say is not None and self._said != num_threads:
            self._said = num_threads
            threads = "1 thread prepares" if num_threads == 1 else f"{num_threads} threads prepare"
            percent = f"{100 * waiting:.0f} %"
            self._say(f"{threads} batches (of at most {self._most}); {percent} of the time was spent waiting for them")


def ahead(
    work: Iterable[Work], make: Callable[[Work], Result], *, num_threads: int, depth: int, pace: Pace | None = None
) -> InOrder[Result]:
    """Call ``make(item)`` for each item of ``work`` in threads; the iterator gives the results in the items' order.

    At most ``depth`` results are ready or in the making, or one more than there are threads if that is more. ``pace``
    may change the number of threads. With 0 threads, each result is made when it is asked for.
    """
    jobs = (partial(make, item) for item in work)
    threads = LoaderThreads(num_threads) if num_threads else None
    return InOrder(jobs, threads, depth, pace.step if pace is not None else None)


def threads_at_most() -> int:
    """Limit on useful threads: the cores that this process may use, divided by torchrun's ranks on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, cores // int(ranks)) if ranks.isdecimal() and int(ranks) else cores


class LoaderThreads(Threads):
    """Threads that compute on one core each; by default, torch would use as many threads as cores in each of them."""

    def __init__(self, count: int) -> None:
        super().__init__(count, "vlapipe-loader")

    def add(self, count: int = 1) -> None:
        """Start more threads; the number of cores that torch uses in other threads stays as it is."""
        before = torch.get_num_threads()
        super().add(count)
        torch.set_num_threads(before)

    def _begin(self) -> None:
        # A thread takes torch's global number when it first asks for the number, so this one asks before it sets its
        # own. Setting changes the global number too; `add` restores that.
        torch.get_num_threads()
        torch.set_num_threads(1)
