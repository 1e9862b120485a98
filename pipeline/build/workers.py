"""Runs shard tasks in threads of this process, or on a Dask cluster if there is enough work for one.

Parsing, compressing and hashing all release Python's GIL, so threads can work on one shard or on several in parallel.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
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


def _cluster_pays(tasks: list[ShardTask], num_workers: int) -> bool:
    """Return True if worker processes pay: there are several shards and much to read."""
    if min(num_workers, len(tasks)) < 2:
        return False
    so_far = itertools.accumulate(episode.num_bytes for task in tasks for episode in task.shard.episodes)
    return any(num_bytes >= _BYTES_WORTH_A_CLUSTER for num_bytes in so_far)


def run_tasks(
    tasks: list[ShardTask],
    progress: Progress,
    *,
    workers: int | None,
    scheduler: str | None,
    scheduler_timeout_s: float,
    episode_timeout_s: float,
) -> Iterator[Record]:
    """Yield each task's record as it finishes, in any order. ``workers`` episodes are read at once.

    Raises:
        UsageError: the scheduler cannot be reached.
        StoppedError: disk, memory or a limit failed, or the cluster's workers failed.
    """
    num_workers = workers or os.cpu_count() or 1
    if not tasks:
        return
    if scheduler is None and not _cluster_pays(tasks, num_workers):
        yield from _run_in_threads(tasks, progress, num_workers)
        return
    # Imported here because the import takes 1 s, which a small dataset need not pay.
    from vlapipe.pipeline.build.cluster import run_on_dask

    if scheduler is None:
        tasks = _shared(tasks, num_workers, min(num_workers, len(tasks)))
    yield from run_on_dask(
        tasks,
        progress,
        num_workers=num_workers,
        scheduler=scheduler,
        timeout_s=scheduler_timeout_s,
        episode_timeout_s=episode_timeout_s,
    )


def _run_in_threads(tasks: list[ShardTask], progress: Progress, num_workers: int) -> Iterator[Record]:
    """Build several shards side by side, so that one shard is read while another is written."""
    at_once = min(num_workers, len(tasks), _MAX_THREADS)
    lock = Lock()

    def advance() -> None:
        with lock:
            progress.advance()

    waiting = iter(_shared(tasks, num_workers, at_once))
    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(build_shard, task, advance) for task in itertools.islice(waiting, at_once + 1)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(build_shard, task, advance) for task in itertools.islice(waiting, len(done))}
                yield from (future.result() for future in done)
        finally:
            for future in running:
                future.cancel()
    let_go_of_files()


def _shared(tasks: list[ShardTask], num_workers: int, at_once: int) -> list[ShardTask]:
    """Give each task its number of threads if ``at_once`` tasks run at the same time."""
    num_threads = min(-(-num_workers // at_once), _MAX_THREADS)
    return [replace(task, num_threads=num_threads) for task in tasks]
