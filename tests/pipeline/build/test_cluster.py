"""Real schedulers and workers on loopback: a scheduler without workers, workers without vlapipe, workers that die."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import pytest
from factories import make_dataset
from tiny_lab import lab_task, make_lab

import vlapipe
from vlapipe.pipeline.build import cluster
from vlapipe.pipeline.build.build import ShardTask
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import StoppedError, UsageError

PACKAGE = str(Path(vlapipe.__file__).parents[1])
# Runs a Dask command where nothing of ours can be imported: -S reads no .pth file, through which we may be installed.
BARE = "import sys; sys.path.append({!r}); from distributed.cli.{} import main; main()"
OPTIONS = ("--host", "127.0.0.1", "--no-dashboard")


def start(what: str, *arguments: str, bare: bool = False) -> subprocess.Popen[bytes]:
    module = f"dask_{what}"
    program = ["-m", f"distributed.cli.{module}"]
    if bare:
        program = ["-S", "-c", BARE.format(str(Path(distributed.__file__).parents[1]), module)]
    environment = {**os.environ, "PYTHONPATH": "" if bare else PACKAGE}
    return subprocess.Popen(
        [sys.executable, *program, *arguments, *OPTIONS],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A scheduler that has no worker."""
    with scheduler_at(tmp_path) as (found, _):
        yield found


@contextlib.contextmanager
def scheduler_at(folder: Path, *, bare: bool = False) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    file = folder / "scheduler.json"
    with running(start("scheduler", "--port", "0", "--scheduler-file", str(file), bare=bare)) as process:
        while not file.exists() or not file.read_text().endswith("}"):
            time.sleep(0.05)
        yield str(json.loads(file.read_text())["address"]), process


def worker(address: str, *, bare: bool = False) -> subprocess.Popen[bytes]:
    return start("worker", address, "--no-nanny", "--nthreads", "1", bare=bare)


def run(raw: Path, out: Path, address: str, timeout_s: float = 30) -> IngestReport:
    return ingest(
        IngestConfig(source=raw, out=out, scheduler=address, scheduler_timeout_s=timeout_s, shard_bytes=1_000_000)
    )


def test_cluster_without_a_worker_is_told_at_once_and_ends_with_5(tmp_path: Path, address: str) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    command = (sys.executable, "-m", "vlapipe", "ingest", "--dataset", raw, "--out", tmp_path / "data")
    child = subprocess.Popen(
        [*command, "--scheduler", address, "--scheduler-timeout", "3"],
        env={**os.environ, "PYTHONPATH": PACKAGE},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    with running(child):
        first = child.stderr.readline()
        assert first == f"--scheduler {address}: no worker; waiting 3 s for one (dask worker {address})\n"
        rest = child.stderr.read()
        assert child.wait() == 5
    assert rest.count("\n") == 1
    assert f"vlapipe: --scheduler {address}: no worker (dask worker {address}; the same command then goes on)" in rest


@pytest.mark.slow
def test_worker_that_comes_late_does_the_work(tmp_path: Path, address: str) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    late: list[subprocess.Popen[bytes]] = []
    timer = threading.Timer(2, lambda: late.append(worker(address)))
    timer.start()
    try:
        assert run(raw, tmp_path / "data", address).num_episodes == 2
    finally:
        timer.join()
        late[0].kill()
        late[0].wait()


def test_worker_without_vlapipe_is_refused_at_once(tmp_path: Path, address: str) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    with running(worker(address, bare=True)), running(worker(address)):
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=600)
        with pytest.raises(UsageError, match=r"worker tcp://.* has no vlapipe: No module named 'vlapipe'"):
            run(raw, tmp_path / "data", address)


def test_worker_with_another_vlapipe_is_named(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    monkeypatch.setattr(cluster, "_VERSION", "'0.0.9'")
    with pytest.raises(UsageError, match=r"the scheduler has vlapipe 0\.0\.9, this is "):
        run(raw, tmp_path / "data", address, timeout_s=2)


def test_worker_with_another_vlapipe_that_comes_late_builds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worker:
        address = "tcp://late:1"

    monkeypatch.setattr(distributed, "get_worker", Worker)
    task: Any = None
    with pytest.raises(UsageError, match="worker tcp://late:1 has vlapipe"):
        cluster._build(task, alone=False, timeout_s=1.0, version="0.0.9")


def test_scheduler_without_vlapipe_is_named(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    with (
        scheduler_at(tmp_path, bare=True) as (address, _),
        pytest.raises(UsageError, match="the scheduler has no vlapipe"),
    ):
        run(raw, tmp_path / "data", address)


def tasks_ahead(folder: Path, address: str, num_tasks: int | None = None) -> Iterator[int]:
    """Check a lab again and again; yields with each record how many of the tasks that were taken are not done."""
    task = lab_task(make_lab(folder / "raw", {"ep0": None}))
    taken: list[int] = []

    def tasks() -> Iterator[ShardTask]:
        for index in itertools.count() if num_tasks is None else range(num_tasks):
            taken.append(index)
            yield replace(task, shard=replace(task.shard, index=index))

    options: dict[str, Any] = {"num_workers": 1, "timeout_s": 60.0, "episode_timeout_s": 60.0}
    progress = Progress("check", 0, "episode", silent=True)
    records = cluster.run_on_dask(tasks(), progress, scheduler=address, **options)
    for done, _ in enumerate(records, start=1):
        yield len(taken) - done


def test_tasks_are_submitted_as_threads_become_free(tmp_path: Path, address: str) -> None:
    with running(worker(address)):
        ahead = list(tasks_ahead(tmp_path, address, num_tasks=12))
    assert ahead == [2] * 10 + [1, 0]  # one at hand, and one that the scheduler hands on


@pytest.mark.slow
def test_tasks_follow_workers_that_join_and_leave(tmp_path: Path, address: str) -> None:
    with running(worker(address)) as first:
        ahead = tasks_ahead(tmp_path, address)
        assert next(ahead) == 2
        with running(worker(address)):
            assert next(number for number in ahead if number > 2) <= 5
            first.kill()
            assert next(number for number in ahead if number <= 2) == 2
            ahead.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_worker_that_dies_leaves_the_run_to_be_gone_on_with(tmp_path: Path, address: str) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=6, num_rows=200)
    out = tmp_path / "data"
    with running(worker(address)) as process:

        def kill_when_begun() -> None:
            while not list(out.glob(".ingest/shard-*.json")):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill_when_begun)
        killer.start()
        with pytest.raises(StoppedError, match="no worker"):
            run(raw, out, address, timeout_s=2)
        killer.join()
    assert not (out / "manifest.json").exists()
    assert ingest(IngestConfig(source=raw, out=out, shard_bytes=1_000_000)).num_resumed_shards >= 1


@pytest.mark.slow
def test_scheduler_that_dies_ends_the_run_with_5(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=6, num_rows=200)
    out = tmp_path / "data"
    with scheduler_at(tmp_path) as (address, scheduler), running(worker(address)):

        def kill_when_begun() -> None:
            while not list(out.glob(".ingest/shard-*.json")):
                time.sleep(0.002)
            scheduler.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill_when_begun)
        killer.start()
        with pytest.raises(StoppedError, match="the scheduler was lost"):
            run(raw, out, address)
        killer.join()


@pytest.mark.parametrize("address", ["s3://x", "tcp://host", "nonsense", "http://host:1"])
def test_address_that_cannot_be_a_scheduler_is_refused_before_anything_is_made(tmp_path: Path, address: str) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(UsageError, match="expected tcp://host:port"):
        IngestConfig(source=tmp_path / "raw", out=tmp_path / "data", scheduler=address)
    assert not (tmp_path / "data").exists()
