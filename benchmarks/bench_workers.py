"""How shards a second grow with the workers of a cluster, from 1 to 32; one JSON line a case.

Only the building is simulated: a worker sleeps for a set time, and returns the record of a shard that was really built.
All else is the real thing: the function that ingest calls, a Dask scheduler in a process of its own, workers that are
connected to it over loopback, tasks with the files of a whole shard's episodes, and records that come back. Eight
workers share a process, so that 32 fit on a small machine. ``efficiency`` compares with so many times the pace of one
worker. The shares of processor time are those of the command, the scheduler and all workers; 1 is a whole core.

``python benchmarks/bench_workers.py --out benchmarks/results/workers.jsonl``
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import distributed
from machine import machine, rounded

import vlapipe
from vlapipe.pipeline.build import cluster
from vlapipe.pipeline.build.build import RecordFile, ShardTask, build_shard
from vlapipe.pipeline.build.records import Records
from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.ingest import IngestConfig, find_recordings, plan_recordings, shard_tasks
from vlapipe.pipeline.layouts.layouts import schema_of
from vlapipe.pipeline.shards.progress_bar import Progress

TARGET = 0.9
A_PROCESS = 8  # workers that share one
SOURCE = str(Path(vlapipe.__file__).parents[1])


def main() -> None:
    """Run the cases, or workers of a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,2,4,8,16,32")
    parser.add_argument("--shard-s", type=float, default=2.0, help="seconds that a shard takes")
    parser.add_argument("--shorter-s", default="1,0.5,0.25", help="also with the most workers, to find the limit")
    parser.add_argument("--shards", type=int, default=8, help="of each worker")
    parser.add_argument("--episodes", type=int, default=20, help="of the demo that is built to get a task and a record")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--crew", nargs=3, metavar=("SCHEDULER", "WORKERS", "RECORD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crew:
        address, count, record = options.crew
        simulate(pickle.loads(Path(record).read_bytes()), options.shard_s)  # noqa: S301 - written by this script
        asyncio.run(work(address, int(count), Path(record).with_name("scratch")))
        return
    numbers = [int(each) for each in options.workers.split(",")]
    cases = [(options.shard_s, number) for number in numbers]
    cases += [
        (float(each), number) for each in filter(None, options.shorter_s.split(",")) for number in (1, max(numbers))
    ]
    with tempfile.TemporaryDirectory() as name:
        task, told = real_shard(Path(name), options.episodes, options.seed)
        alone: dict[float, float] = {}
        lines = []
        for shard_s, number in cases:
            found = measured(Path(name), task, number, shard_s, options.shards)
            alone.setdefault(shard_s, found["shards_s"] / number)
            efficiency = found["shards_s"] / number / alone[shard_s]
            case = {"case": "workers", "workers": number, "shard_s": shard_s, **found, "efficiency": efficiency}
            case |= {"target": TARGET, **told, **machine()}
            lines.append(json.dumps({key: rounded(value) for key, value in case.items()}))
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    if options.out is not None:
        options.out.write_text("".join(line + "\n" for line in lines))


def real_shard(folder: Path, num_episodes: int, seed: int) -> tuple[ShardTask, dict[str, Any]]:
    """Build the first shard of a demo, and keep its record in a file. Returns its task, and sizes to be told."""
    make_demo(folder / "raw", num_episodes=num_episodes, seed=seed)
    config = IngestConfig(source=folder / "raw", dry_run=True)
    schema = schema_of(config.schema, config.source)
    _, plan = plan_recordings(config, schema, find_recordings(config, schema)[0])
    place = RecordFile(shards=folder / "shards", records=folder / "records")
    place.shards.mkdir()
    place.records.mkdir()
    task = shard_tasks(config, plan, place)[0]
    began = time.perf_counter()
    record = build_shard(task)
    built_s = time.perf_counter() - began
    (folder / "record").write_bytes(pickle.dumps(record))
    told = {"episodes": len(task.shard.episodes), "task_bytes": len(pickle.dumps(task))}
    return task, {**told, "record_bytes": len(pickle.dumps(record)), "built_here_s": built_s}


def measured(folder: Path, task: ShardTask, number: int, shard_s: float, shards_a_worker: int) -> dict[str, Any]:
    """Let so many workers build shards, and measure."""
    count = number * shards_a_worker
    tasks = (replace(task, shard=replace(task.shard, index=index)) for index in range(count))
    with scheduler(folder) as (address, pid), crew(folder, address, number, shard_s) as pids:
        before, load = [time.process_time(), cpu_s([pid]), cpu_s(pids)], os.getloadavg()[0]
        began = time.perf_counter()
        records = Records(folder)
        for record in cluster.run_on_dask(
            tasks,
            Progress("bench", count * len(task.shard.episodes), "episode", silent=True),
            num_workers=number,
            scheduler=address,
            timeout_s=60.0,
            episode_timeout_s=600.0,
        ):
            records.add(record)
        took_s = time.perf_counter() - began
        assert all(map(records.has, range(count)))
        assert len(records) == count
        after = [time.process_time(), cpu_s([pid]), cpu_s(pids)]
    names = ("command_share", "scheduler_share", "workers_share")
    told = {name: (now - then) / took_s for name, now, then in zip(names, after, before, strict=True)}
    return {"shards": count, "took_s": took_s, "shards_s": count / took_s, **told, "load_before": load}


@contextlib.contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, int]]:
    """Start a scheduler on loopback. Yields its address and its process."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    with started([sys.executable, "-m", "distributed.cli.dask_scheduler", *options], folder / "scheduler.log") as child:
        while not file.exists() or not file.read_text().endswith("}"):
            time.sleep(0.05)
        yield str(json.loads(file.read_text())["address"]), child.pid


@contextlib.contextmanager
def crew(folder: Path, address: str, number: int, shard_s: float) -> Iterator[list[int]]:
    """Start simulated workers, and wait for all of them. Yields their processes."""
    pids = []
    with contextlib.ExitStack() as stack:
        for first in range(0, number, A_PROCESS):
            told = [address, str(min(A_PROCESS, number - first)), str(folder / "record")]
            command = [sys.executable, __file__, "--shard-s", str(shard_s), "--crew", *told]
            pids.append(stack.enter_context(started(command, folder / f"crew-{first}.log")).pid)
        with distributed.Client(address) as client:
            client.wait_for_workers(number, timeout=300)
        yield pids


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as file:
        environment = {**os.environ, "PYTHONPATH": SOURCE}
        child = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            yield child
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def simulate(record: dict[str, Any], shard_s: float) -> None:
    """Put a sleep in the place of the building of a shard."""

    def sleep(task: ShardTask, on_episode: Any) -> dict[str, Any]:
        time.sleep(shard_s)
        on_episode()
        return {**record, "index": task.shard.index}

    cluster.build_shard = sleep  # type: ignore[assignment]


async def work(address: str, count: int, scratch: Path) -> None:
    """Be so many workers of one thread each, for ever."""
    dask.config.set({"distributed.worker.profile.enabled": False})  # else 32 of them take half a core
    options = {"nthreads": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "local_directory": str(scratch)}
    workers = [distributed.Worker(address, **options) for _ in range(count)]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


def cpu_s(pids: list[int]) -> float:
    """Return the seconds of processor time that processes have taken."""
    every = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in every) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
