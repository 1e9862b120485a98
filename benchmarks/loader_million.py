"""Makes a dataset of a million episodes and a billion frames that fits on a small disk.

The manifest names one file as every shard. All data that opening reads has full size, and the numbers of no two
episodes are the same. Shards can be read as well.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from loader_data import ROBOT, make_episodes, write_dataset

import vlapipe
from vlapipe.pipeline.shards.manifest.manifest import write_generation

__all__ = ["write_many_episodes"]

SHARD_ROWS = 2_000_000  # 2000 episodes: 96 MB of states
LEAST_SHARDS = 10


def write_many_episodes(folder: Path, num_episodes: int) -> Path:
    """Write about ``num_episodes`` episodes of about 1000 frames. A folder that has them is left as it is."""
    if (folder / "done").exists():
        return folder
    write_dataset(folder, ROBOT, make_episodes(ROBOT, min(SHARD_ROWS, 1000 * num_episodes // LEAST_SHARDS)))
    dataset = vlapipe.open_dataset(folder)
    manifest = dataset.manifest
    table = dataset.episodes
    times = max(1, round(num_episodes / len(table)))
    entries: dict[str, Any] = {k: v for k, v in vars(manifest).items() if k not in ("episodes", "rejects")}
    (entries["shards"],) = ([shard] * times for shard in manifest.shards)
    totals = ("episodes", "frames", "seconds", "shard_bytes")
    entries["totals"] = {k: v * times if k in totals else v for k, v in manifest.totals.items()}
    write_generation(folder, entries, _many(table, times), [])
    (folder / "done").touch()
    return folder


def _many(table: pa.Table, times: int) -> pa.Table:
    numbers = np.arange(len(table) * times)
    columns = {
        name: _told_apart(pa.concat_arrays([column.combine_chunks()] * times))
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    columns["episode_index"] = pa.array(numbers)
    columns["id"] = pa.array([f"task_{i % 4}/episode_20260101_{i:07d}" for i in numbers.tolist()])
    columns["shard"] = pa.array(numbers // len(table))
    columns["sources"] = _sources(columns["sources"])
    return pa.table(columns)


def _told_apart(array: pa.Array) -> pa.Array:
    """Change every float64 by up to a millionth, so that equal values do not compress to nothing."""
    if isinstance(array, pa.StructArray):
        return pa.StructArray.from_arrays([_told_apart(part) for part in array.flatten()], fields=list(array.type))
    if isinstance(array, pa.ListArray):
        return pa.ListArray.from_arrays(array.offsets, _told_apart(array.values))
    if array.type != pa.float64():
        return array
    values = array.to_numpy(zero_copy_only=False)
    return pa.array(values * (1 + 1e-6 * np.random.default_rng(0).random(len(values))))


def _sources(array: pa.ListArray) -> pa.ListArray:
    """Give each file a path and a digest of its own."""
    files = array.values
    paths = [f"task_{i % 4}/episode_20260101_{i:07d}/robot_states.csv" for i in range(len(files))]
    digests = [hashlib.sha256(path.encode()).hexdigest() for path in paths]
    parts = {field.name: part for field, part in zip(files.type, files.flatten(), strict=True)}
    parts |= {"path": pa.array(paths), "sha256": pa.array(digests)}
    told = pa.StructArray.from_arrays(list(parts.values()), fields=list(files.type))
    return pa.ListArray.from_arrays(array.offsets, told)
