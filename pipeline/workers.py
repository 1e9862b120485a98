"""Runs shard tasks: in this process where a cluster would not pay, otherwise one Dask future a shard.

A cluster that we start listens on loopback only and shows no dashboard.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator

from vlapipe.pipeline.build import ShardTask, build_shard
from vlapipe.pipeline.progress import Progress
from vlapipe.pipeline.record import Record
from vlapipe.schemas.errors import UsageError, VlapipeError

__all__ = ["cluster_pays", "run_tasks"]

# Starting worker processes takes 3-4 s, in which one process gets through about 200 MB of raw episodes.
_BYTES_WORTH_A_CLUSTER = 512 << 20


def cluster_pays(tasks: list[ShardTask], workers: int | None) -> bool:
    """Whether to start worker processes; a number of workers that was asked for is what the user gets."""
    if len(tasks) < 2 or workers == 1 or (workers is None and (os.cpu_count() or 1) == 1):
        return False
    raw_bytes = sum(episode.num_bytes for task in tasks for episode in task.shard.episodes)
    return workers is not None or raw_bytes >= _BYTES_WORTH_A_CLUSTER


def run_tasks(
    tasks: list[ShardTask], progress: Progress, *, workers: int | None, scheduler: str | None
) -> Iterator[Record]:
    """Yield each task's record as it finishes, in any order.

    Raises:
        UsageError: the scheduler cannot be reached.
        VlapipeError: a worker died over a shard.
    """
    if scheduler is None and not cluster_pays(tasks, workers):
        for task in tasks:
            yield build_shard(task, progress.advance)
        return
    yield from _run_on_dask(tasks, progress, workers or os.cpu_count() or 1, scheduler)


def _run_on_dask(tasks: list[ShardTask], progress: Progress, workers: int, scheduler: str | None) -> Iterator[Record]:
    # Imported here: it takes a second, which a small dataset need not pay.
    from distributed import Client, KilledWorker, LocalCluster, as_completed

    with tempfile.TemporaryDirectory(prefix="vlapipe-dask-") as scratch:
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout="10s")
            except (OSError, TimeoutError, ValueError) as error:
                raise UsageError(f"--scheduler {scheduler}: no answer: {error}", "is it running?") from None
            cluster = None
        else:
            cluster = LocalCluster(
                n_workers=min(workers, len(tasks)),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
            client = Client(cluster)
        try:
            futures = {client.submit(build_shard, task, pure=False): task for task in tasks}
            for future in as_completed(futures):
                try:
                    record: Record = future.result()
                except KilledWorker:
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
