"""How fast ``vlapipe verify --full`` reads, beside SHA-256 alone over the same bytes in memory; one JSON line a case.

The files are in the page cache, so the disk does not limit. The baseline hashes the files' bytes from memory, on as
many threads. Both take turns, and the best of each counts. ``cpu_ratio`` compares the processor time of all turns,
which other programs disturb less. The quick look, which ``vlapipe inspect`` takes, has a line of its own.

``python benchmarks/bench_verify.py --out benchmarks/results/verify.jsonl``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, rounded

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tiny_lab import ingest_lab, make_lab, schema_text

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.manifest.manifest import MANIFEST, Manifest
from vlapipe.pipeline.shards.verify.verify import verify

TARGET = 0.8  # of the digest's own speed
QUICK_S = 1.5


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--shard-mb", type=float, default=64)
    parser.add_argument("--many", type=int, default=5000, help="shards of one episode each, for the quick look")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        make_lab(Path(folder) / "raw", {"ep0": {}})
        data = Path(folder) / "data"
        ingest_lab(Path(folder) / "raw", data, schema_text())
        shards = fill(data, options.shards, int(options.shard_mb * 1e6))
        results += [full(data, shards, threads, options.repeat) for threads in (1, 2)]
        fill(data, options.many, 1000)
        results.append(quick(data, options.many, options.repeat))
    lines = "".join(json.dumps({name: rounded(value) for name, value in each.items()}) + "\n" for each in results)
    sys.stdout.write(lines)
    if options.out is not None:
        options.out.write_text(lines)


def fill(data: Path, count: int, num_bytes: int) -> list[bytes]:
    """Replace the dataset's shards by files of random bytes, and list them. Returns the bytes."""
    for file in (data / "shards").iterdir():
        file.unlink()
    entry, contents, shards = Manifest.read(data).shards[0], [], []
    for i in range(count):
        content = np.random.default_rng(i).bytes(num_bytes)
        digest = hashlib.sha256(content).hexdigest()
        file = f"shards/shard-{i:05d}-{digest[:8]}.npz"
        (data / file).write_bytes(content)
        contents.append(content)
        shards.append({**entry, "file": file, "bytes": num_bytes, "sha256": digest})
    write_bytes(data / MANIFEST, Manifest(**{**vars(Manifest.read(data)), "shards": shards}).to_json())
    return contents


def measured(action: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds on the clock, and of the processor."""
    began = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def full(data: Path, shards: list[bytes], threads: int, repeat: int) -> dict[str, Any]:
    """Measure both ways of hashing all shards."""
    num_bytes = sum(map(len, shards))

    def ours() -> None:
        assert not verify(data, num_threads=threads).faults

    def baseline() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda content: hashlib.sha256(content).digest(), shards))

    turns = [(measured(ours), measured(baseline)) for _ in range(repeat)]
    wall = [min(turn[side][0] for turn in turns) for side in (0, 1)]
    cpu = [sum(turn[side][1] for turn in turns) for side in (0, 1)]
    return {
        "bench": "verify",
        "case": "full",
        "against": "SHA-256 of the same bytes in memory",
        "threads": threads,
        "bytes": num_bytes,
        "ours": num_bytes / wall[0] / 1e6,
        "baseline": num_bytes / wall[1] / 1e6,
        "unit": "MB/s",
        "ratio": wall[1] / wall[0],
        "cpu_ratio": cpu[1] / cpu[0],
        "target": TARGET,
        **machine(),
    }


def quick(data: Path, count: int, repeat: int) -> dict[str, Any]:
    """Measure the quick look, which ``vlapipe inspect`` takes."""

    def look() -> None:
        assert not verify(data, share=0.0).faults

    turns = [measured(look) for _ in range(repeat)]
    ours = min(wall for wall, _ in turns)
    return {
        "bench": "verify",
        "case": "quick",
        "against": f"{QUICK_S} s",
        "shards": count,
        "ours": ours,
        "baseline": QUICK_S,
        "unit": "s",
        "ratio": QUICK_S / ours,
        "cpu_s": min(cpu for _, cpu in turns),
        "target": 1.0,
        **machine(),
    }


if __name__ == "__main__":
    main()
