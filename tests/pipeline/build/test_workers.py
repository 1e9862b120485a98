"""Threads and worker processes build the same files, and processes are used only if they pay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import lab_task, make_lab

from vlapipe.pipeline.build import cluster, workers
from vlapipe.pipeline.build.build import ShardTask
from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.progress_bar import Progress


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run(source: Path, out: Path, num_workers: int | None, shard_bytes: int = 1_500_000) -> dict[str, bytes]:
    ingest(IngestConfig(source=source, out=out, workers=num_workers, shard_bytes=shard_bytes))
    return tree(out)


def test_threads_and_processes_write_identical_files(
    tiny_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_threads = run(tiny_raw, tmp_path / "threads", 2)
    started: list[int] = []
    real = cluster.run_on_dask

    def counting(*args: Any, num_workers: int, **options: Any) -> Iterator[Record]:
        started.append(num_workers)
        return real(*args, num_workers=num_workers, **options)

    monkeypatch.setattr(workers, "_BYTES_WORTH_A_CLUSTER", 0)
    monkeypatch.setattr(cluster, "run_on_dask", counting)
    assert run(tiny_raw, tmp_path / "processes", 2) == in_threads
    assert started == [2]


@pytest.mark.parametrize("num_workers", [None, 1, 3])
def test_threads_share_one_shard(tiny_raw: Path, tmp_path: Path, num_workers: int | None) -> None:
    alone = run(tiny_raw, tmp_path / "alone", 1, shard_bytes=10**9)
    assert run(tiny_raw, tmp_path / "shared", num_workers, shard_bytes=10**9) == alone


def test_few_bytes_start_no_cluster(tiny_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "run_on_dask", lambda *_, **__: pytest.fail("a cluster was started"))
    run(tiny_raw, tmp_path / "data", 2)


def test_threads_take_tasks_as_they_become_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = lab_task(make_lab(tmp_path / "raw", {"ep0": None}))
    monkeypatch.setattr(workers, "_BYTES_WORTH_A_CLUSTER", task.shard.episodes[0].num_bytes)
    taken: list[int] = []

    def tasks() -> Iterator[ShardTask]:
        for index in range(12):
            taken.append(index)
            yield replace(task, shard=replace(task.shard, index=index))

    options: dict[str, Any] = {"scheduler": None, "scheduler_timeout_s": 1.0, "episode_timeout_s": 1.0}
    done: list[int] = []
    for record in workers.run_tasks(tasks(), Progress("check", 12, "episode", silent=True), workers=1, **options):
        done.append(record["index"])
        assert len(taken) - len(done) <= 1
    assert sorted(done) == taken == list(range(12))
