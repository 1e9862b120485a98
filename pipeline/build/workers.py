"""Runs shard tasks in threads of this process, or on a Dask cluster if there is enough work for one.

Parsing, compressing and hashing all release Python's GIL, so threads can work on one shard or on several in parallel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from itertools import chain, islice
from threading import Lock

from vlapipe.pipeline.build.build import ShardTask, build_shard
from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.read.file_parts import let_go_of_files
from vlapipe.pipeline.shards.progress_bar import Progress

__all__ = ["run_tasks"]

# Starting worker processes takes 1 s on idle cores and 3 s on busy ones. Threads wait for the GIL while Python itself
# runs (a quarter of the time), so one process for every few threads pays once there is a minute's work.
_BYTES_WORTH_A_CLUSTER = 8 << 30
_MAX_THREADS = 4  # threads in one process; more threads would only wait for the GIL
_TASKS_A_THREAD = 2  # that are taken: the one at work, and the next one


def _look_ahead(tasks: Iterator[ShardTask], num_workers: int) -> tuple[list[ShardTask], bool]:
    """Take tasks until it is known whether worker processes pay: there are several shards and much to read."""
    taken: list[ShardTask] = []
    raw_bytes = 0
    while raw_bytes < _BYTES_WORTH_A_CLUSTER or len(taken) < num_workers:
        task = next(tasks, None)
        if task is None:
            break
        taken.append(task)
        raw_bytes += sum(episode.num_bytes for episode in task.shard.episodes)
    return taken, min(num_workers, len(taken)) > 1 and raw_bytes >= _BYTES_WORTH_A_CLUSTER


def run_tasks(
    tasks: Iterable[ShardTask],
    progress: Progress,
    *,
    workers: int | None,
    scheduler: str | None,
    scheduler_timeout_s: float,
    episode_timeout_s: float,
) -> Iterator[Record]:
    """Yield each task's record as it finishes, in any order. ``workers`` episodes are read at once.

    Tasks are taken a few ahead of those that are at work, so ``tasks`` need not be in memory as a whole.

    Raises:
        UsageError: the scheduler cannot be reached.
        StoppedError: disk, memory or a limit failed, or the cluster's workers failed.
    """
    num_workers = workers or os.cpu_count() or 1
    waiting = iter(tasks)
    if scheduler is None:
        taken, pays = _look_ahead(waiting, num_workers)
        at_once = min(num_workers, max(len(taken), 1), num_workers if pays else _MAX_THREADS)
        waiting = _shared(chain(taken, waiting), num_workers, at_once)
        if not pays:
            yield from _run_in_threads(waiting, progress, at_once)
            return
        num_workers = at_once
    else:
        taken = list(islice(waiting, 1))
        if not taken:
            return
        waiting = chain(taken, waiting)
    # Imported here because the import takes 1 s, which a small dataset need not pay.
    from vlapipe.pipeline.build.cluster import run_on_dask

    yield from run_on_dask(
        waiting,
        progress,
        num_workers=num_workers,
        scheduler=scheduler,
        timeout_s=scheduler_timeout_s,
        episode_timeout_s=episode_timeout_s,
    )


def _run_in_threads(tasks: Iterator[ShardTask], progress: Progress, at_once: int) -> Iterator[Record]:
    """Build several shards side by side, so that one shard is read while another is written."""
    lock = Lock()

    def advance() -> None:
        with lock:
            progress.advance()

    futures: set[Future[Record]] = set()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for task in tasks:
                futures.add(pool.submit(build_shard, task, advance))
                if len(futures) == _TASKS_A_THREAD * at_once:
                    done, futures = wait(futures, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(futures))
        finally:
            for future in futures:
                future.cancel()
    let_go_of_files()


def _shared(tasks: Iterator[ShardTask], num_workers: int, at_once: int) -> Iterator[ShardTask]:
    """Give each task its number of threads if ``at_once`` tasks run at the same time."""
    num_threads = min(-(-num_workers // at_once), _MAX_THREADS)
    return (replace(task, num_threads=num_threads) for task in tasks)
