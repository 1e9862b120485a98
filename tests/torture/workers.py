"""Kills workers of a Dask cluster at random, and gives them episodes that end, block or overfill their process.

``python tests/torture/workers.py --kills 50 --episodes 200 --seed 0``

Each run with a killed worker must make the tree of an undisturbed run. Of the episodes, one crashes, one hangs and one
takes all memory: these three are set aside with their reasons, and all others are kept. The product has no hook for
that: the workers' environment has a module of this test that wraps the function that reads an episode.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import distributed

sys.path.insert(0, str(Path(__file__).parents[1]))

from harmful_episodes import CAUSES, make_hook
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.pipeline.ingest import IngestReport
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.verify.verify import verify

SCHEMA = schema_text(val=0.3)
SOURCE = str(Path(vlapipe.__file__).parents[1])


@contextlib.contextmanager
def cluster(folder: Path, harm: dict[str, str] | None = None) -> Iterator[str]:
    """Start a scheduler and two workers on loopback, each with a nanny that starts it again. Yields the address."""
    folder.mkdir()
    paths = os.pathsep.join([str(make_hook(folder / "hook", harm or {})), SOURCE])
    environment = {**os.environ, "PYTHONPATH": paths, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    file = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    started = []

    def start(what: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options, *arguments]
        with (folder / f"{what}.log").open("w") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))

    try:
        start("scheduler", "--port", "0", "--scheduler-file", str(file))
        while not file.exists() or not file.read_text().endswith("}"):
            time.sleep(0.05)
        address = str(json.loads(file.read_text())["address"])
        limits = ["--nworkers", "2", "--nthreads", "1", "--memory-limit", "700MB"]
        start("worker", address, *limits, "--local-directory", str(folder / "scratch"))
        yield address
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)  # the workers too
            process.wait()


def tree(data: Path) -> dict[str, bytes]:
    return {p.relative_to(data).as_posix(): p.read_bytes() for p in sorted(data.rglob("*")) if p.is_file()}


def ingest(raw: Path, out: Path, address: str | None, **options: object) -> IngestReport:
    """Ingest in shards of about 20 episodes."""
    return ingest_lab(raw, out, SCHEMA, shard_bytes=500, scheduler=address, scheduler_timeout_s=300.0, **options)


def worker_pids(client: distributed.Client) -> list[int]:
    """Wait for both workers, of which one may be dying or starting."""
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            client.wait_for_workers(2)
            pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if isinstance(pid, int)]
            if len(pids) == 2:
                return pids
        time.sleep(0.1)


def kill_workers(folder: Path, raw: Path, kills: int, seed: int) -> None:
    """Ingest again and again; each time kill a worker at a random moment, and compare the trees."""
    chance = random.Random(seed)  # noqa: S311
    ingest(raw, folder / "undisturbed", None)
    expected = tree(folder / "undisturbed")
    at_work, differ = 0, 0
    with cluster(folder / "cluster") as address, distributed.Client(address) as client:
        client.wait_for_workers(2)
        started = time.monotonic()
        ingest(raw, folder / "first", address)
        length_s = time.monotonic() - started
        assert tree(folder / "first") == expected
        for _ in range(kills):
            pids = worker_pids(client)
            data = folder / "data"
            ended = threading.Event()
            killed_at_work: list[bool] = []

            def kill(pid: int = chance.choice(pids), after_s: float = chance.uniform(0, length_s)) -> None:
                killed_at_work.append(not ended.wait(after_s))  # noqa: B023
                os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            ingest(raw, data, address)
            ended.set()
            killer.join()
            at_work += killed_at_work[0]
            differ += tree(data) != expected
            shutil.rmtree(data)
    say(f"{kills} runs with a worker killed, {at_work} of them while the run went on: {differ} trees differ")
    assert not differ


def give_harmful(folder: Path, raw: Path, episodes: int, seed: int) -> None:
    """Ingest episodes of which three harm the process that reads them."""
    names = random.Random(seed).sample(sorted(path.name for path in raw.iterdir()), len(CAUSES))  # noqa: S311
    harm = dict(zip(names, CAUSES, strict=True))
    data = folder / "data"
    started = time.monotonic()
    with cluster(folder / "cluster", harm) as address:
        report = ingest(raw, data, address, episode_timeout_s=10.0)
    rejects = {reject["episode"]: reject["reasons"][0]["code"] for reject in report.rejects}
    took_s = time.monotonic() - started
    say(f"{report.num_episodes} of {episodes} episodes kept, set aside in {took_s:.0f} s: {json.dumps(rejects)}")
    assert rejects == {name: CAUSES[how] for name, how in harm.items()}
    assert len(open_dataset(data)) == report.num_episodes == episodes - len(CAUSES)
    assert not verify(data).faults


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="runs with a killed worker")
    parser.add_argument("--harmful", type=int, default=3, choices=[0, 3], help="episodes that harm their process")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        raw = make_lab(folder / "raw", {f"ep{i:03d}": {"n": i} for i in range(asked.episodes)})
        if asked.kills:
            (folder / "kills").mkdir()
            kill_workers(folder / "kills", raw, asked.kills, asked.seed)
        if asked.harmful:
            (folder / "harm").mkdir()
            give_harmful(folder / "harm", raw, asked.episodes, asked.seed)


if __name__ == "__main__":
    main()
