"""The threads that prepare batches: how many are worth trying, and that each computes on one core.

Nothing that they do needs a process of its own: gathering and decoding let go of the interpreter's lock.
"""

from __future__ import annotations

import os

import torch

from vlapipe.pipeline.shards.ordered_map import Threads

__all__ = ["LoaderThreads", "threads_at_most"]


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
