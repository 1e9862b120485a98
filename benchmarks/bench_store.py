"""Reading batches from a dataset in a store, beside the same dataset on the disk; one JSON line a case.

The store is a real S3 server on loopback, a Python program that shares the machine's cores. The first epoch begins with
empty caches on both sides, so the disk's shards are unpacked and the store's are fetched too. In later epochs both read
from the cache, in turns, and ``ratio`` is the median of the turns' ratios. ``after_first_shard_s`` is the time from the
moment at which the first shard was there to the first batch.

``python benchmarks/bench_store.py --out benchmarks/results/store.jsonl``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from machine import machine, rounded

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from store_server import BUCKET, environment, serve

from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.paths import dataset_path
from vlapipe.train.data.loader import Loader

TARGET = 0.9  # of the disk's speed, after the first epoch
START_S = 2.0  # from the first shard's bytes to the first batch


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=5, help="later epochs on each side")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serve(Path(name) / "server.log") as port:
        folder = Path(name)
        os.environ |= environment(port)
        raw = folder / "raw"
        make_demo(raw, num_episodes=options.episodes, seed=0)
        places = {"disk": str(folder / "data"), "store": f"s3://{BUCKET}/data"}
        results = [ingesting(raw, places, folder)]
        results += reading(places, folder, options)
    lines = "".join(json.dumps({name: rounded(value) for name, value in each.items()}) + "\n" for each in results)
    sys.stdout.write(lines)
    if options.out is not None:
        options.out.write_text(lines)


def ingesting(raw: Path, places: dict[str, str], folder: Path) -> dict[str, Any]:
    """Ingest into both places."""
    os.environ["VLAPIPE_CACHE_DIR"] = str(folder / "cache-of-ingest")
    spent_s = {}
    for place, out in places.items():
        began = time.perf_counter()
        ingest(IngestConfig(source=raw, out=dataset_path(out), shard_bytes=20_000_000))
        spent_s[place] = time.perf_counter() - began
    megabytes = sum(shard["bytes"] for shard in open_dataset(places["disk"]).manifest.shards) / 1e6
    told = {f"{place}_s": each for place, each in spent_s.items()}
    return {"case": "ingest", "stored_mb": megabytes, **told, **machine()}


def reading(places: dict[str, str], folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Read epochs from both places."""
    loaders, first = {}, {}
    for place, path in places.items():
        os.environ["VLAPIPE_CACHE_DIR"] = str(folder / f"cache-of-{place}")
        began = time.time()
        dataset = open_dataset(path)
        opened_s = time.time() - began
        loader = loaders[place] = Loader(dataset, batch_size=options.batch_size, seed=0, num_workers=2, endless=True)
        began = time.time()
        batches = iter(loader)
        next(batches)
        first_batch_s = time.time() - began
        arrived = [file.stat().st_ctime for file in (folder / f"cache-of-{place}").glob("*.fetched")]
        after_s = began + first_batch_s - min(arrived) if arrived else first_batch_s
        count = len(loader)
        for _ in islice(batches, count - 1):
            pass
        speed = count * options.batch_size / (time.time() - began)
        first[place] = {
            "open_s": opened_s,
            "first_batch_s": first_batch_s,
            "after_first_shard_s": after_s,
            "samples_s": speed,
        }
        batches.close()  # type: ignore[attr-defined]
    yield {
        "case": "first epoch",
        **{f"{place}_{name}": value for place, values in first.items() for name, value in values.items()},
        "start_target_s": START_S,
        **machine(),
    }
    speeds: dict[str, list[float]] = {place: [] for place in places}
    open_loaders = {place: iter(loader) for place, loader in loaders.items()}
    for batches in open_loaders.values():
        next(batches)
    for _ in range(options.repeat):
        for place, batches in open_loaders.items():
            began, count = time.perf_counter(), len(loaders[place])
            for _ in islice(batches, count):
                pass
            speeds[place].append(count * options.batch_size / (time.perf_counter() - began))
    ratios = [ours / theirs for ours, theirs in zip(speeds["store"], speeds["disk"], strict=True)]
    yield {
        "case": "later epochs",
        "disk_samples_s": statistics.median(speeds["disk"]),
        "store_samples_s": statistics.median(speeds["store"]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "target": TARGET,
        **machine(),
    }


if __name__ == "__main__":
    main()
