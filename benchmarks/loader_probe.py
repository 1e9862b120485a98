"""Measures the fresh process that runs this file, and prints one line of JSON. The other benchmarks start this file.

``open DATASET``: seconds and memory to open a dataset and build its loader. ``hold DATASET WORKERS BATCHES``: private
memory in the middle of an epoch. ``first DATASET CACHE SHUFFLE_SHARDS``: seconds to the first batch, with ``0`` for the
full shuffle. ``unpack DATASET CACHE``: seconds to unpack every shard and get a batch. ``chosen DATASET CACHE CHOICE``:
seconds to the first batch of one of ``CHOICES``. Seconds never include imports.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import vlapipe
from vlapipe import Window

BATCH = 64
CHOICES = {
    "other fields": Window(state=["robot/tcp_pose"], state_rows=50),
    "chunk of 50 instead of 8": Window(action_rows=50, action_stride=1),
    "relative actions": Window(
        state_rows=1, action={"kind": "absolute", "append": {}}, action_form="relative", action_rows=50, action_stride=1
    ),
    "windows in seconds": Window(state_s=1.0, state_rows=20, action_s=0.8, action_rows=8),
}


def status_mb(name: str) -> float:
    """Return an entry of /proc/self/status in MB (1e6 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kilobytes) * 1024 / 1e6


def measure_opening(path: str) -> dict[str, float]:
    """Measure reading the manifest and the episodes table and building the loader. No shard is read."""
    before = status_mb("VmRSS")
    started = time.perf_counter()
    dataset = vlapipe.open_dataset(path)
    opened = time.perf_counter()
    vlapipe.Loader(dataset, batch_size=BATCH, num_workers=0)
    done = time.perf_counter()
    peak = status_mb("VmHWM")
    return {"open_s": opened - started, "seconds": done - started, "peak_mb": peak, "imports_mb": before}


def measure_holding(path: str, workers: str, batches: str) -> dict[str, float]:
    """Measure anonymous memory while batches are read. Maps of the dataset's files are not part of it."""
    before = status_mb("RssAnon")
    loader = vlapipe.Loader(vlapipe.open_dataset(path), batch_size=BATCH, num_workers=int(workers), endless=True)
    stream = iter(loader)
    for _ in range(int(batches)):
        next(stream)
    return {"private_mb": status_mb("RssAnon"), "imports_mb": before}


def measure_first(path: str, cache: str, shuffle_shards: str) -> dict[str, float]:
    """Measure the time to the first batch, with all the unpacking that the loader does for it."""
    mixed = {"shuffle_shards": int(shuffle_shards)} if int(shuffle_shards) else {}
    started = time.perf_counter()
    dataset = vlapipe.open_dataset(path, cache_dir=cache)
    batches = iter(vlapipe.Loader(dataset, batch_size=BATCH, num_workers=2, **mixed))
    next(batches)  # ``batches`` stays alive: deleting the iterator would wait for the batches in progress
    return {"seconds": time.perf_counter() - started}


def measure_unpacking(path: str, cache: str) -> dict[str, float]:
    """Measure unpacking every shard, one after another, and then reading a batch."""
    started = time.perf_counter()
    dataset = vlapipe.open_dataset(path, cache_dir=cache)
    for shard in range(len(dataset.manifest.shards)):
        dataset.arrays(shard)
    next(iter(vlapipe.Loader(dataset, batch_size=BATCH, num_workers=2)))
    return {"seconds": time.perf_counter() - started}


def measure_chosen(path: str, cache: str, choice: str) -> dict[str, float]:
    """Measure from opening the dataset to the first batch of a sample that nobody chose before."""
    started = time.perf_counter()
    dataset = vlapipe.open_dataset(path, cache_dir=cache)
    batches = iter(vlapipe.Loader(dataset, window=CHOICES[choice], batch_size=BATCH, num_workers=2))
    next(batches)  # see ``measure_first``
    return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    assert vlapipe.Loader, "imports it"
    what = {"open": measure_opening, "hold": measure_holding, "first": measure_first, "unpack": measure_unpacking}
    what["chosen"] = measure_chosen
    print(json.dumps(what[sys.argv[1]](*sys.argv[2:])), flush=True)
