"""Runs shard tasks: in threads of this process where a cluster would not pay, otherwise one Dask future a shard.

Parsing, compressing and hashing all release Python's lock, so threads share the work of one shard or of several. A
cluster that we start listens on loopback only and shows no dashboard.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from threading import Lock

from vlapipe.pipeline.build import ShardTask, build_shard
from vlapipe.pipeline.progress import Progress
from vlapipe.pipeline.record import Record
from vlapipe.schemas.errors import UsageError, VlapipeError

__all__ = ["run_tasks"]

# Starting worker processes takes 1 s on idle cores and 3 s on busy ones. Threads wait for each other wherever Python
# itself runs, a quarter of the time, so a process of its own for a few of them pays once there is a minute's work.
_BYTES_WORTH_A_CLUSTER = 8 << 30
_MAX_THREADS = 4  # of a process; more would only wait


def _cluster_pays(tasks: list[ShardTask], num_workers: int) -> bool:
    """Whether to start worker processes rather than threads: much to read, in several shards."""
    raw_bytes = sum(episode.num_bytes for task in tasks for episode in task.shard.episodes)
    return min(num_workers, len(tasks)) > 1 and raw_bytes >= _BYTES_WORTH_A_CLUSTER


def run_tasks(
    tasks: list[ShardTask], progress: Progress, *, workers: int | None, scheduler: str | None
) -> Iterator[Record]:
    """Yield each task's record as it finishes, in any order; ``workers`` read episodes at once.

    Raises:
        UsageError: the scheduler cannot be reached.
        VlapipeError: a worker died over a shard.
    """
    num_workers = workers or os.cpu_count() or 1
    if scheduler is None and not _cluster_pays(tasks, num_workers):
        yield from _run_in_threads(tasks, progress, num_workers)
    else:
        yield from _run_on_dask(tasks, progress, num_workers, scheduler)


def _run_in_threads(tasks: list[ShardTask], progress: Progress, num_workers: int) -> Iterator[Record]:
    """Several shards side by side, where there are several, so that one is read while another is written."""
    if not tasks:
        return
    at_once = min(num_workers, len(tasks), _MAX_THREADS)
    lock = Lock()

    def advance() -> None:
        with lock:
            progress.advance()

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(build_shard, task, advance) for task in _shared(tasks, num_workers, at_once)]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _shared(tasks: list[ShardTask], num_workers: int, at_once: int) -> list[ShardTask]:
    """Each task with its share of the threads, where so many run at once."""
    num_threads = min(-(-num_workers // at_once), _MAX_THREADS)
    return [replace(task, num_threads=num_threads) for task in tasks]


def _run_on_dask(
    tasks: list[ShardTask], progress: Progress, num_workers: int, scheduler: str | None
) -> Iterator[Record]:
    # Imported here: it takes a second, which a small dataset need not pay.
    import distributed

    with tempfile.TemporaryDirectory(prefix="vlapipe-dask-") as scratch:
        if scheduler is not None:
            try:
                client = distributed.Client(scheduler, timeout="10s")
            except (OSError, TimeoutError, ValueError) as error:
                raise UsageError(f"--scheduler {scheduler}: no answer: {error}", "is it running?") from None
            cluster = None
        else:
            cluster = distributed.LocalCluster(
                n_workers=min(num_workers, len(tasks)),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
            client = distributed.Client(cluster)
        try:
            if cluster is not None:
                tasks = _shared(tasks, num_workers, min(num_workers, len(tasks)))
            futures = {client.submit(build_shard, task, pure=False): task for task in tasks}
            for future in distributed.as_completed(futures):
                try:
                    record: Record = future.result()
                except distributed.KilledWorker:
                    number = futures[future].shard.index
                    cure = "it may need more memory: try fewer --workers or a smaller --shard-size"
                    raise VlapipeError(f"a worker died again and again over shard {number}", cure) from None
                progress.advance(len(futures[future].shard.episodes))
                future.release()
                yield record
        finally:
            client.close()
            if cluster is not None:
                cluster.close()
