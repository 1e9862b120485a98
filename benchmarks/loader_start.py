"""Measures how soon training starts and how much memory it holds. Most figures come from a fresh process."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from loader_data import ROBOT_AND_SENSOR, SHARD_BYTES, make_episodes, write_dataset
from loader_million import write_many_episodes
from loader_timing import Line, Settings, line, measure
from loader_windows import BATCH, STATE_ROWS, state_dataset

import vlapipe

__all__ = ["bench_first_batch", "bench_memory", "bench_opening", "bench_resume"]

NUM_EPISODES = 1_010_000  # 1.002 billion frames
FIRST_ROWS = 375_000  # rows of the robot: 10 GB of sensor rows
NUM_SHARDS = 40  # number of shards that these rows fill at ingest's own shard size
MIXED = 1  # shards whose frames are mixed, in the case without a full shuffle
HELD_BATCHES = 300
PROBE = Path(__file__).with_name("loader_probe.py")


def probe(*arguments: object) -> dict[str, float]:
    """Run ``loader_probe`` in a fresh process and return its figures."""
    command = [sys.executable, str(PROBE), *map(str, arguments)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def limit(values: list[float], most: float) -> Line:
    """Compare a result with its upper limit. The ratio is the limit over the result."""
    value = statistics.median(values)
    return {"ours": value, "baseline": most, "ratio": most / value, "target": 1.0, "met": value <= most}


def bench_opening(settings: Settings) -> Iterator[Line]:
    """Measure opening a dataset of a million episodes and building its loader."""
    dataset = many_episodes(settings)
    found = [probe("open", dataset.path) for _ in range(settings.repeat)]
    about = {"episodes": len(dataset), "shards": len(dataset.manifest.shards)}
    table = dataset.path / dataset.manifest.episodes["file"]
    opening = {"open_s": statistics.median(each["open_s"] for each in found)}
    yield {"against": "1 s", "unit": "s", **about, **limit([each["seconds"] for each in found], 1.0), **opening}
    for what, without in (("peak of the whole process", "nothing"), ("peak beyond what imports hold", "imports_mb")):
        peaks = limit([each["peak_mb"] - each.get(without, 0) for each in found], 300.0)
        size = {"table_bytes": table.stat().st_size}
        yield {"against": f"300 MB, {what}", "unit": "MB", **about, **size, **peaks}


def many_episodes(settings: Settings) -> vlapipe.Dataset:
    """Return the dataset of ``loader_million``."""
    count = min(NUM_EPISODES, max(100, round(NUM_EPISODES * settings.scale)))
    return vlapipe.open_dataset(write_many_episodes(settings.folder / f"episodes-{count}", count))


def bench_memory(settings: Settings) -> Iterator[Line]:
    """Measure private memory by workers and amount of data, the largest figure against the smallest."""
    tenth = Settings(**{**vars(settings), "scale": settings.scale / 10})
    paths = {"1x": state_dataset(tenth).path, "10x": state_dataset(settings).path}
    held: dict[str, list[float]] = {}
    for _ in range(min(3, settings.repeat)):
        for size, path in paths.items():
            for workers in (0, 2, 8):
                found = probe("hold", path, workers, HELD_BATCHES)
                held.setdefault(f"{size}, {workers} workers", []).append(found["private_mb"])
                held.setdefault("imports alone", []).append(found["imports_mb"])
    by_setting = {name: statistics.median(values) for name, values in held.items()}
    imports = by_setting.pop("imports alone")
    most, least = max(by_setting.values()), min(by_setting.values())
    yield {
        "against": "the least of the settings",
        "unit": "MB of RssAnon",
        "state_bytes_10x": int(STATE_ROWS * settings.scale) * 48,
        "ours": most,
        "baseline": least,
        "ratio": most / least,
        "target": 1.1,
        "met": most <= 1.1 * least,
        "by_setting": {name: round(value, 1) for name, value in by_setting.items()},
        "imports_mb": imports,
    }


def bench_first_batch(settings: Settings) -> Iterator[Line]:
    """Measure opening a packed, cold dataset up to the first batch, against unpacking everything first."""
    rows = int(FIRST_ROWS * max(settings.scale, 0.004))
    path = settings.folder / f"first-{rows}"
    # A shard has whole episodes, so a fifth more room makes two episodes fill a shard.
    shard_bytes = min(SHARD_BYTES, int(1.2 * rows * 6.5 * 1026 * 4 / NUM_SHARDS))
    write_dataset(path, ROBOT_AND_SENSOR, make_episodes(ROBOT_AND_SENSOR, rows), shard_bytes=shard_bytes)
    cache = settings.folder / "first-cache"

    def cold(*what: object) -> Callable[[], float]:
        def seconds() -> float:
            shutil.rmtree(cache, ignore_errors=True)
            evict(path)
            return 1 / probe(what[0], path, cache, *what[1:])["seconds"]

        return seconds

    ways = {"full shuffle": cold("first", 0), f"shuffle_shards={MIXED}": cold("first", MIXED)}
    rates = measure({**ways, "unpack all": cold("unpack")}, min(3, settings.repeat))
    shutil.rmtree(cache, ignore_errors=True)
    dataset = vlapipe.open_dataset(path)
    about = {
        "against": "unpacking everything first",
        "pages": "cold",
        "unit": "batches/s",
        "shards": len(dataset.manifest.shards),
        "stored_bytes": dataset.manifest.totals["shard_bytes"],
        "unpacked_bytes": int(rows * 6.5 * 1026 * 4),
    }
    for way in ways:
        result = line(rates, way, "unpack all", 10.0)
        yield {"order": way, **about, **result, "first_batch_s": 1 / result["ours"], "unpack_s": 1 / result["baseline"]}


def evict(folder: Path) -> None:
    """Drop the dataset's files from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def bench_resume(settings: Settings) -> Iterator[Line]:
    """Measure resuming in the middle of epoch 3 up to a batch, with every shard open as in a training run."""
    torch.set_num_threads(1)
    dataset = many_episodes(settings)
    for shard in range(len(dataset.manifest.shards)):
        dataset.arrays(shard)
    loader = vlapipe.Loader(dataset, batch_size=BATCH, num_workers=0)
    next(iter(loader))
    middle: dict[str, Any] = {"epoch": 2, "position": loader.num_frames // 2}
    took: dict[str, list[float]] = {"start": [], "resume": [], "load": []}
    for turn in range(max(9, settings.repeat)):
        for what, place in (("start", {"epoch": 0, "position": turn * BATCH}), ("resume", middle)):
            state = {**loader.state_dict(), **place}
            state["position"] += turn * BATCH
            started = time.perf_counter()
            loader.load_state_dict(state)
            loaded = time.perf_counter()
            next(iter(loader))
            took[what].append(time.perf_counter() - started)
        took["load"].append(loaded - started)
    yield {
        "against": "10 ms",
        "unit": "s",
        "frames": loader.num_frames,
        **limit(took["resume"], 0.010),
        "load_state_s": statistics.median(took["load"]),
        "first_batch_of_epoch_1_s": statistics.median(took["start"]),
    }
