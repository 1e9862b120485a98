"""Keeps a few batches ready ahead, in order, on threads; finds out how many threads that needs.

Only so many batches are ready or in the making at a time, however slowly they are taken. Nothing that the threads do
needs a process of its own: copying and decoding release the interpreter's lock.
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

_PROBE = 16  # batches that a decision is made upon
_WAITING = 0.05  # share of the time spent waiting that is worth another thread
_GAIN = 0.05  # what twice the threads must bring, or they are let go


class Pace:
    """Decides how many threads there should be: twice as many, while somebody waits for them and it helps.

    It goes on looking, as a run may begin with steps that take long, until threads were added in vain.
    """

    def __init__(
        self,
        most: int,
        chosen: Callable[[str], None] | None = None,
        is_settled: Callable[[], bool] = lambda: True,
    ) -> None:
        """At most ``most`` threads; ``chosen`` is told how many there are, in a sentence, when that has been found.

        What is measured counts while ``is_settled``: not while shards are unpacked beside the batches, for instance.
        """
        self._most, self._say, self._said, self._is_settled = most, chosen, 0, is_settled
        self._period_before = 0.0  # seconds a batch before threads were added; 0 if none were just added
        self._added = 0
        self._is_over = False
        self._begin_probe(skip=1)

    def _begin_probe(self, skip: int) -> None:
        """Count from ``skip`` batches on: those before were prepared in other circumstances."""
        self._count, self._waited_s, self._began_s = -skip, 0.0, 0.0

    def step(self, waited_s: float, num_threads: int) -> int:
        """Threads to add, or to let go if negative, after ``waited_s`` was waited for a batch."""
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
    """``make(item)`` of every item, in order; ``depth`` of them are ready or in the making, or one more than threads.

    ``pace`` may change the number of threads. Without threads each is made when it is asked for.
    """
    jobs = (partial(make, item) for item in work)
    threads = LoaderThreads(num_threads) if num_threads else None
    return InOrder(jobs, threads, depth, pace.step if pace is not None else None)


def threads_at_most() -> int:
    """How many threads are worth trying: the cores that this process may use, shared with torchrun's ranks here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, cores // int(ranks)) if ranks.isdecimal() and int(ranks) else cores


class LoaderThreads(Threads):
    """Threads that compute on one core each: torch would give each a team of as many threads as there are cores."""

    def __init__(self, count: int) -> None:
        super().__init__(count, "vlapipe-loader")

    def add(self, count: int = 1) -> None:
        """Start more threads, and leave the number of cores that other threads compute on as it is."""
        before = torch.get_num_threads()
        super().add(count)
        torch.set_num_threads(before)

    def _begin(self) -> None:
        # The number is of this thread once it has been asked for, and of threads to come, which `add` puts right.
        torch.get_num_threads()
        torch.set_num_threads(1)
