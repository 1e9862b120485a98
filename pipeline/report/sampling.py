"""Chooses the episodes whose rows a report reads, so that a terabyte takes no longer than a gigabyte."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.report.recorded import PackedShard, RecordedEpisode
from vlapipe.pipeline.shards.dataset import Dataset

__all__ = ["MOST_EPISODES", "MOST_SHARDS", "choose_episodes", "open_episodes"]

MOST_EPISODES = 64  # whose rows are read
MOST_SHARDS = 32  # that are opened
_MOST_NPZ_SHARDS = 4  # an NPZ array can be decoded only as a whole


def choose_episodes(
    dataset: Dataset, chosen: NDArray[np.int64], first: Iterable[int], *, most: int = MOST_EPISODES
) -> list[int]:
    """Returns the indices of the episodes to read, in order: those of ``first``, then some evenly spread.

    ``chosen`` are the episodes that the report is about.
    """
    shards = dataset.column("shard")
    most_shards = _MOST_NPZ_SHARDS if dataset.manifest.shard_format == "npz" else MOST_SHARDS
    # Evenly spread, finer and finer: a half, then quarters, so that the first few are spread too.
    spread = np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), 4 * MOST_EPISODES)).astype(int))
    finer = sorted(range(len(spread)), key=lambda i: _reversed_bits(i))
    found: list[int] = []
    opened: set[int] = set()
    for index in [*first, *(int(chosen[spread[i]]) for i in finer)]:
        shard = int(shards[index])
        if index in found or (shard not in opened and len(opened) >= most_shards):
            continue
        found.append(int(index))
        opened.add(shard)
        if len(found) >= most:
            break
    return sorted(found)


def open_episodes(dataset: Dataset, indices: Iterable[int]) -> dict[int, RecordedEpisode]:
    """Returns the episodes by index; each shard is opened once."""
    shards: dict[int, PackedShard] = {}
    found = {}
    of_episode = dataset.column("shard")
    for index in indices:
        shard = int(of_episode[index])
        if shard not in shards:
            shards[shard] = PackedShard(dataset, shard)
        found[index] = RecordedEpisode(dataset, index, shards[shard])
    return found


def _reversed_bits(number: int) -> int:
    return int(f"{number:016b}"[::-1], 2)
