"""Makes a large dataset out of a small one: the manifest names its shards and episodes many times. Copies no array."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

import vlapipe
from vlapipe.pipeline.shards.manifest.manifest import write_generation


def repeat_dataset(source: Path, out: Path, *, num_shards: int, episodes_per_shard: int = 1) -> Path:
    """``num_shards`` shards, which are all the source's first one, each with its first episode over and over."""
    dataset = vlapipe.open_dataset(source)
    entry = dataset.manifest.shards[0]
    (out / "shards").mkdir(parents=True)
    os.link(source / entry["file"], out / entry["file"])
    count = num_shards * episodes_per_shard
    table = dataset.episodes.slice(0, 1).take(pa.array(np.zeros(count, dtype=np.int64)))
    for name, values in {
        "episode_index": np.arange(count),
        "shard": np.repeat(np.arange(num_shards), episodes_per_shard),
        "id": [f"task/episode_{i:07d}" for i in range(count)],
    }.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    manifest = {name: value for name, value in vars(dataset.manifest).items() if name not in ("episodes", "rejects")}
    write_generation(out, manifest | {"shards": [entry] * num_shards}, table, [])
    return out
