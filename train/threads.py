"""Threads that prepare batches: as many as are asked for, and more while they are found to be too few.

Nothing that they do needs a process of its own: gathering and decoding let go of the interpreter's lock.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch

__all__ = ["Threads", "threads_at_most"]


def threads_at_most() -> int:
    """How many threads are worth trying: the cores that this process may use, shared with torchrun's ranks here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, cores // int(ranks)) if ranks.isdecimal() and int(ranks) else cores


class Threads:
    """A pool that can grow."""

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._tasks = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._num_leaving = 0
        self.add(count)
        atexit.register(self.close)  # for an iterator that somebody still holds when the process ends

    def __len__(self) -> int:
        return len(self._threads) - self._num_leaving

    def add(self, count: int = 1) -> None:
        """Start more threads."""
        before = torch.get_num_threads()
        ready = threading.Barrier(count + 1)
        for _ in range(count):
            name = f"vlapipe-loader-{len(self._threads)}"
            thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        ready.wait()
        torch.set_num_threads(before)

    def remove(self, count: int) -> None:
        """Let some end, after what has been submitted so far."""
        for _ in range(count):
            self._tasks.put(None)
        self._num_leaving += count

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have it called; its result, or its error, is the future's."""
        future: Future[Any] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Forget what has not begun, wait for what has."""
        atexit.unregister(self.close)
        while not self._tasks.empty():
            task = self._tasks.get()
            if task is not None:
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, ready: threading.Barrier) -> None:
        # One core a thread: torch would give each its own team of as many threads as there are cores. The number is of
        # this thread once it has been asked for, and of threads to come, which `add` puts right.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait()
        del ready
        while (task := self._tasks.get()) is not None:
            future, function, arguments = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
                    future.set_exception(error)
            del task, future, function, arguments  # or the last batch would be held until the next one comes
